"""QA files: every layout, every blemish."""

import gzip
import json

import pyarrow.parquet
import pytest

from finetuning.recipes.questions.squad import Answer, Question, check_answers, place_answers, read_questions


def squad(context, *questions):
    return {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def entry(name, text, start):
    return {"id": name, "question": "what?", "answers": [{"text": text, "answer_start": start}]}


def write(path, content):
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def test_squad_layout_plain_and_packed(tmp_path):
    content = squad("one two three", entry("a", "two", 4), entry("b", "three", 8))
    expected = [
        Question("a", "what?", "one two three", (Answer("two", 4),)),
        Question("b", "what?", "one two three", (Answer("three", 8),)),
    ]
    assert read_questions(write(tmp_path / "f.json", content)) == expected
    packed = tmp_path / "f.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(content).encode()))
    assert read_questions(packed) == expected
    assert expected[0].group == expected[1].group


def test_cmrc_flat_and_line_layouts(tmp_path):
    answer = Answer("two", -1)
    cmrc = [
        {
            "context_id": "c",
            "context_text": "one two",
            "qas": [{"query_id": "a", "query_text": "what?", "answers": ["two"]}],
        }
    ]
    assert read_questions(write(tmp_path / "c.json", cmrc)) == [Question("a", "what?", "one two", (answer,))]
    flat = {"id": "a", "question": "what?", "context": "one two", "answers": {"text": ["two"], "answer_start": [4]}}
    expected = [Question("a", "what?", "one two", (Answer("two", 4),))]
    assert read_questions(write(tmp_path / "f.json", [flat])) == expected
    lines = tmp_path / "f.jsonl"
    lines.write_text(json.dumps(flat) + "\n\n", encoding="utf-8")
    assert read_questions(lines) == expected
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([flat]), tmp_path / "f.parquet")
    assert read_questions(tmp_path / "f.parquet") == expected
    table = tmp_path / "f.csv"
    table.write_text("id,question,context,answer_text,answer_start\na,what?,one two,two,4\n", encoding="utf-8")
    assert read_questions(table) == expected
    table.write_text("id,question,context,answer_text,answer_start\na,what?,one two,two,\nb,who?,one,,\n")
    assert [one.answers for one in read_questions(table)] == [(Answer("two", -1),), ()]


@pytest.mark.parametrize(
    "fields",
    [
        {"answers": {"text": "two", "answer_start": 4}},
        {"answers": {"text": ["two"], "answer_start": [4]}},
        {"answers": {"text": "two", "answer_start": [4]}},
        {"answers": "two", "answer_start": 4},
        {"answer": "two", "answer_start": 4},
        {"answer": {"text": "two", "answer_start": 4}},
        {"answer": [{"text": "two", "answer_start": 4}]},
        {"answers": None, "answer_text": "two", "answer_start": "4"},
    ],
)
def test_an_answer_in_any_common_form_is_read(tmp_path, fields):
    row = {"id": "a", "question": "what?", "context": "one two", **fields}
    expected = Question("a", "what?", "one two", (Answer("two", 4),))
    assert read_questions(write(tmp_path / "f.json", [row])) == [expected]
    nested = squad("one two", {name: value for name, value in row.items() if name != "context"})
    assert read_questions(write(tmp_path / "g.json", nested)) == [expected]


def test_an_answer_without_a_place_is_looked_for(tmp_path):
    for answers in ("two", ["two"], {"text": ["two"]}, {"text": "two", "answer_start": None}, [{"text": "two"}]):
        row = {"id": "a", "question": "what?", "context": "one two", "answers": answers}
        (question,) = place_answers(read_questions(write(tmp_path / "f.json", [row])))[0]
        assert question.answers == (Answer("two", 4),), answers


def test_a_question_without_an_id_has_its_place_in_the_file_as_one(tmp_path):
    row = {"question": "what?", "context": "one two", "answers": ["two"]}
    rows = [row, {**row, "id": "a"}, {**row, "id": None}]
    assert [one.id for one in read_questions(write(tmp_path / "f.json", rows))] == ["0", "a", "2"]
    asked = {"question": "what?", "answers": ["two"]}
    nested = {"data": [{"paragraphs": [{"context": "one two", "qas": [asked, asked]}] * 2}] * 2}
    ids = [one.id for one in read_questions(write(tmp_path / "g.json", nested))]
    assert ids == ["0-0", "0-1", "0-2", "0-3", "1-0", "1-1", "1-2", "1-3"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answers": 5}, r"entry 0: 'answers' is 5: a list of \{text, answer_start\}"),
        ({"answers": [["two"]]}, r"entry 0: 'answers' holds \['two'\]: a text, or an object"),
        ({"answers": {"text": ["two"], "answer_start": [1, 2]}}, "entry 0: 'answers' is .* lists of one length"),
        ({"answers": {"answer_start": [1]}}, "entry 0 is not a known layout .it has no 'text'"),
        ({"answers": "two", "context": None}, "entry 0: 'context' is NoneType"),
        ({"answers": "two", "qas": {"id": 1}}, "entry 0: 'qas' is {'id': 1}: a list of objects"),
        ({"paragraphs": ["one"], "question": "q", "context": "c"}, "--context_file"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_in_the_terms_of_the_file(tmp_path, fields, message):
    row = {"id": "a", "question": "what?", "context": "one two", **fields}
    with pytest.raises(ValueError, match=message) as refused:
        read_questions(write(tmp_path / "f.json", [row]))
    assert "Error" not in str(refused.value)


def test_two_stage_layout_with_and_without_the_relevant_paragraph(tmp_path):
    contexts = write(tmp_path / "context.json", ["zero zero", "one two", "three"])
    row = {
        "id": "a",
        "question": "what?",
        "paragraphs": [0, 1, 2, 0],
        "relevant": 1,
        "answer": {"text": "two", "start": 4},
    }
    train = write(tmp_path / "train.json", [row])
    assert read_questions(train, context_file=contexts) == [Question("a", "what?", "one two", (Answer("two", 4),))]
    test = write(tmp_path / "test.json", [{name: row[name] for name in ("id", "question", "paragraphs")}])
    assert read_questions(test, context_file=contexts) == [Question("a", "what?", "", stated=False)]
    with pytest.raises(ValueError, match="--context_file"):
        read_questions(train)
    bad = write(tmp_path / "bad.json", [{**row, "paragraphs": [7]}])
    with pytest.raises(ValueError, match="paragraph 7 is not among the 3"):
        read_questions(bad, context_file=contexts)
    for relevant in (1, -1, 7):
        bad = write(tmp_path / "bad.json", [{**row, "paragraphs": [0, 2], "relevant": relevant}])
        with pytest.raises(ValueError, match=rf"the relevant paragraph {relevant} is not one of its paragraphs"):
            read_questions(bad, context_file=contexts)


def test_answers_are_moved_only_to_a_single_place():
    context = "red and blue and red"
    questions = [
        Question("right", "?", context, (Answer("blue", 8),)),
        Question("moved", "?", context, (Answer("blue", -1),)),
        Question("twice", "?", context, (Answer("red", 3),)),
        Question("nowhere", "?", context, (Answer("green", -1), Answer("blue", 9))),
    ]
    placed, repairs = place_answers(questions)
    assert [question.answers[0].start for question in placed] == [8, 8, -1, -1]
    assert placed[3].span() == (8, 12)
    assert [answer.text for answer in placed[3].answers] == ["green", "blue"]  # all texts still count in the metric
    assert (repairs.answers, repairs.off, repairs.repaired, repairs.ambiguous, repairs.absent) == (5, 4, 2, 1, 1)
    assert repairs.without_span == 1
    with pytest.raises(ValueError, match=r"^dev.json: 4 answers are not.*\(ids moved, twice, nowhere\): correct"):
        place_answers(questions, strict=True, where="dev.json")
    assert place_answers(questions[:1], strict=True)[1].off == 0


def test_duplicate_ids_are_listed(tmp_path):
    file = write(
        tmp_path / "f.json", squad("one two", entry("a", "two", 4), entry("b", "two", 4), entry("a", "one", 0))
    )
    with pytest.raises(ValueError, match=r"1 id given more than once \(a\)"):
        read_questions(file)


def test_no_answers_are_null_answers_in_version_2_only():
    some = [Question("a", "?", "c", (Answer("c", 0),)), Question("b", "?", "c")]
    assert check_answers(some, version_2=True, where="f")
    with pytest.raises(ValueError, match="--version_2_with_negative"):
        check_answers(some, version_2=False, where="f")
    assert not check_answers(some[1:], version_2=False, where="f")


def test_a_version_2_set_without_any_answer_is_no_set_of_unanswerable_questions(tmp_path):
    row = {"id": "a", "question": "what?", "context": "one two"}
    for content, train, test in (
        (row, False, False),  # not a word on answers
        ({**row, "answers": []}, True, False),  # of a test set: more likely hidden than none
        ({**row, "answers": [], "is_impossible": True}, True, False),
    ):
        questions = read_questions(write(tmp_path / "f.json", [content]))
        assert check_answers(questions, version_2=True, where="validation") == train
        assert check_answers(questions, version_2=True, where="test") == test
    mixed = [Question("a", "?", "c", (Answer("c", 0),)), Question("b", "?", "c")]
    assert check_answers(mixed, version_2=True, where="test")


def test_is_impossible_leaves_out_the_plausible_answers(tmp_path):
    file = write(tmp_path / "f.json", squad("one two", {**entry("a", "two", 4), "is_impossible": True}))
    assert read_questions(file)[0].answers == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty or blank"),
        (b"  \n ", "empty or blank"),
        (b'{"data": []}', "no questions"),
        (b'{"data": [{"title": "x", "paragraphs": []}]}', "no questions: the file has paragraphs"),
        (b'{"data": [{"paragraphs": [{"context": 5, "qas": [{"id": "a"}]}]}]}', "'context' is int"),
        (b'{"data": [{"nothing": 1}]}', "entry 0 is not a known layout"),
        (b"[1, 2]", "entry 0 is not a known layout"),
        (b'{"data": [', "f.json"),
        (b'{"data": "\xff"}', "byte 10 is not UTF-8"),
        (b"[" * 200_000, "nested too deeply|not JSON"),
        (b'[{"id": ' + b"1" * 5000 + b"}]", "Exceeds the limit"),
        (
            b'[{"id": 1, "question": "\\ud83d\\ude00 a \\ud83d b", "context": ""}]',
            r"text at \[0\]\['question'\] has half",
        ),
        (
            b'[{"id": 1, "question": "", "context": "a", "answers": [{"text": "a", "answer_start": 1e999}]}]',
            "entry 0: 'answer_start' is inf: a whole number",
        ),
        (
            b'[{"id": 1, "question": "", "context": "a", "answers": [{"text": "a", "answer_start": 0.5}]}]',
            "entry 0: 'answer_start' is 0.5: a whole number",
        ),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, content, message):
    file = tmp_path / "f.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_questions(file)
    assert "f.json" in str(caught.value)


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
def test_a_file_that_is_not_packed_as_its_name_says_is_refused_by_name(tmp_path, suffix):
    (tmp_path / f"f.json{suffix}").write_bytes(b"hello" * 10)
    with pytest.raises(ValueError, match=rf"f\.json{suffix} cannot be unpacked"):
        read_questions(tmp_path / f"f.json{suffix}")


def test_text_that_is_not_utf_8_is_replaced_on_request(tmp_path, caplog):
    file = tmp_path / "f.json"
    content = json.dumps(squad("one two three", entry("a", "two", 4))).encode()
    file.write_bytes(content.replace(b"three", b"th\xffee"))
    assert read_questions(file, on_bad_text="replace")[0].context == "one two th\ufffdee"
    assert "1 characters were not UTF-8" in caplog.text


def test_blemishes_of_cmrc_as_its_description_counts_them(real_data):
    questions = read_questions(real_data / "cmrc2018" / "cmrc2018_dev.json.gz")
    _, repairs = place_answers(questions)
    assert (len(questions), repairs.answers, repairs.off) == (3219, 9657, 200)
    assert sum(answer.start == -1 for question in questions for answer in question.answers) == 193
