"""Files of examples, changed at random: examples, or a clear refusal that names the file."""

import gzip
import io
import json
import tarfile
from functools import partial

import pyarrow
import pyarrow.parquet
import pytest
from file_mutations import few_and_many, refusals
from tiny_examples import reviews

from finetuning.examples.dataset_records import read_dataset
from finetuning.recipes.choices.choice_files import has_labels, read_choices
from finetuning.recipes.questions.squad import check_answers, place_answers, read_contexts, read_questions
from finetuning.recipes.texts.glue_tasks import GLUE_TASKS, read_glue
from finetuning.recipes.texts.labelled_text import content_key, hold_out, is_blank, label_names, read_examples
from finetuning.recipes.tokens.tagged_files import read_tagged

CONTEXT = "The first word is one; the second is two."
ANSWER = {"text": "one", "answer_start": 18}
ENTRY = {"id": "a", "question": "what?", "answers": [ANSWER]}
SQUAD = {"data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": [ENTRY, {**ENTRY, "id": "b"}]}]}]}
SQUAD_2 = {
    "data": [{"paragraphs": [{"context": CONTEXT, "qas": [ENTRY, {"id": "c", "question": "?", "answers": []}]}]}]
}
CMRC = [{"context_text": CONTEXT, "qas": [{"query_id": "a", "query_text": "what?", "answers": ["one", "two"]}]}]
FLAT = {"id": "a", "question": "what?", "context": CONTEXT, "answers": {"text": ["one"], "answer_start": [18]}}
TWO_STAGE = {"id": "q", "question": "?", "paragraphs": [0, 1], "relevant": 0, "answer": {"text": "one", "start": 18}}
CONTEXTS = [CONTEXT, "Another paragraph."]
C3 = [[["one", "two"], [{"question": "q", "choice": ["x", "y"], "answer": "y"}], "1"]]
C3_ROW = {
    "documents": ["one"],
    "document_id": "m",
    "questions": [{"question": "q", "choice": ["x", "y"], "answer": "y"}],
}
DREAM = {"id": 0, "dialogue_id": "m", "dialogue": ["one", "two"], "question": "q", "choice": ["x", "y"], "answer": "y"}
LETTERS = [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}]
COMMONSENSE = {"id": "a", "answerKey": "B", "question": {"stem": "?", "choices": LETTERS}}
COMMONSENSE_ROW = {"id": "a", "question": "?", "choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": "A"}
SWAG = {"sent1": "one", "sent2": "two", "ending0": "x", "ending1": "y", "label": 1}
PLAIN = {"id": "a", "context": "c", "question": "q ?", "choices": ["x", "y", "z"], "label": 2}
PAIRS = [{"id": str(n), "text": f"t {n}", "text_pair": "p", "label": n % 3} for n in range(6)]


def as_json(content) -> bytes:
    return json.dumps(content, ensure_ascii=False, indent=1).encode()


def as_lines(rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_table(rows, separator) -> bytes:
    lines = [separator.join(rows[0]), *(separator.join(map(str, row.values())) for row in rows)]
    return "\n".join([*lines, ""]).encode()


def as_parquet(rows) -> bytes:
    stream = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue().to_pybytes()


def as_tar(rows) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for row in rows:
            member = tarfile.TarInfo(f"train/{row['label']}/{row['id']}.txt")
            member.size = len(row["text"].encode())
            archive.addfile(member, io.BytesIO(row["text"].encode()))
    return stream.getvalue()


def questions(path, folder):
    found = read_questions(path, context_file=folder / "contexts.json")
    placed, _ = place_answers(found, where=str(path))
    check_answers(placed, version_2=True, where=str(path))
    for question in placed:
        question.span()
        for text in (question.group, question.id, question.question):
            text.encode()


def choices(path, folder):
    found = read_choices(path, context_file=folder / "contexts.json")
    has_labels(found, str(path))
    for question in found:
        for text in (question.id, *question.firsts, *question.seconds):
            text.encode()


def texts(path, folder):
    found = read_examples(path)
    label_names(found)
    for example in found:
        is_blank(example)
        content_key(example).encode()
        example.example_id.encode()
    if len(found) > 4 and len({content_key(example) for example in found}) > 4:
        try:
            hold_out(found, 0.5)
        except ValueError as error:  # of the examples, whatever file they come from
            raise ValueError(f"{path}: {error}") from error


def sentences(path, folder):
    for sentence in read_tagged(path):
        (sentence.id + sentence.text).encode()


CONLLU = (
    b"# newdoc id = d\n# sent_id = s1\n1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_\n1\tdo\tdo\tAUX\tVB\t_\t0\troot\t_\t_\n"
    b"2\tn't\tnot\tPART\tRB\t_\t1\tadvmod\t_\t_\n\n# sent_id = s2\n1\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_\n\n"
)
CONLL = b"-DOCSTART- -X- O O\n\nAda NNP B-NP B-PER\nwrote VBD B-VP O\n\nLondon NNP B-NP B-LOC\n"
TAGGED = [{"id": str(n), "tokens": ["Ada", "wrote"], "tags": ["B-PER", "O"]} for n in range(3)]
REVIEWS = [dict(row, pair="a pair") for row in reviews(8)]
# By name: the reader, the content, the least share that is refused.
EXAMPLES = {
    "squad.json": (questions, as_json(SQUAD), 0.2),
    "squad-2.json": (questions, as_json(SQUAD_2), 0.2),
    "cmrc.json": (questions, as_json(CMRC), 0.2),
    "flat.jsonl": (questions, as_lines([FLAT, {**FLAT, "id": "b"}]), 0.2),
    "flat.parquet": (questions, as_parquet([FLAT, {**FLAT, "id": "b"}]), 0.1),
    "two-stage.json": (questions, as_json([TWO_STAGE]), 0.2),
    "two-stage-choices.json": (choices, as_json([TWO_STAGE]), 0.2),
    "c3.json": (choices, as_json(C3), 0.2),
    "c3-rows.jsonl": (choices, as_lines([C3_ROW]), 0.2),
    "dream.jsonl": (choices, as_lines([DREAM]), 0.2),
    "commonsense.jsonl": (choices, as_lines([COMMONSENSE]), 0.2),
    "commonsense-rows.json": (choices, as_json([COMMONSENSE_ROW]), 0.2),
    "swag.json": (choices, as_json([SWAG]), 0.1),
    "swag.csv": (choices, as_table([SWAG, SWAG], ","), 0.05),
    "plain.json": (choices, as_json([PLAIN]), 0.2),
    "words.conllu": (sentences, CONLLU, 0.2),
    "words.conll": (sentences, CONLL, 0.05),
    "words.bio.gz": (sentences, gzip.compress(CONLL, mtime=0), 0.2),
    "words.jsonl": (sentences, as_lines(TAGGED), 0.2),
    "texts.json": (texts, as_json(REVIEWS), 0.2),
    "texts.jsonl": (texts, as_lines(PAIRS), 0.2),
    "texts.csv": (texts, as_table(REVIEWS, ","), 0.02),
    "texts.tsv": (texts, as_table(PAIRS, "\t"), 0.02),
    "texts.csv.gz": (texts, gzip.compress(as_table(REVIEWS, ","), mtime=0), 0.2),
    "texts.parquet": (texts, as_parquet(PAIRS), 0.1),
    "texts.tar": (texts, as_tar(REVIEWS), 0.1),
    "texts.tar.gz": (texts, gzip.compress(as_tar(REVIEWS), mtime=0), 0.2),
}


@few_and_many
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_file_of_examples(tmp_path, name, rounds):
    read, content, least = EXAMPLES[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "contexts.json").write_bytes(as_json(CONTEXTS))
    refusals(tmp_path / name, partial(read, tmp_path / name, tmp_path), rounds, least=least)


@few_and_many
def test_the_contexts(tmp_path, rounds):
    path = tmp_path / "contexts.json"
    path.write_bytes(as_json(CONTEXTS))
    refusals(path, lambda: [text.encode() for text in read_contexts(path)], rounds)


GLUE_FILES = {
    "cola": b"".join(b"gj04\t%d\t\tA sentence, number %d.\n" % (n % 2, n) for n in range(6)),
    "stsb": b"index\tsentence1\tsentence2\tscore\n" + b"".join(b"%d\tone\ttwo\t%d.5\n" % (n, n % 5) for n in range(6)),
    "mnli": b"index\tsentence1\tsentence2\tgold_label\n" + b"".join(b"%d\tone\ttwo\tneutral\n" % n for n in range(6)),
}
GLUE_STEMS = {"mnli": ("train", "dev_matched", "dev_mismatched")}


@few_and_many
@pytest.mark.parametrize("task", GLUE_FILES)
def test_a_task_of_glue(tmp_path, task, rounds):
    for stem in GLUE_STEMS.get(task, ("train", "dev")):
        (tmp_path / f"{stem}.tsv").write_bytes(GLUE_FILES[task])

    def read():
        for examples in read_glue(GLUE_TASKS[task], tmp_path).values():
            assert [(content_key(one).encode(), one.example_id.encode()) for one in examples]

    refusals(tmp_path / "train.tsv", read, rounds, least=0.1)


@few_and_many
def test_the_original_files_of_mrpc(tmp_path, rounds):
    rows = b"".join(b"%d\t%d\t%d\tone\ttwo %d\n" % (n % 2, 10 + n, 30 + n, n) for n in range(12))
    for split in ("train", "test"):
        content = b"Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + rows
        (tmp_path / f"msr_paraphrase_{split}.txt").write_bytes(content)

    def read():
        for examples in read_glue(GLUE_TASKS["mrpc"], tmp_path).values():
            assert [(content_key(example).encode(), example.example_id.encode()) for example in examples]

    refusals(tmp_path / "msr_paraphrase_train.txt", read, rounds, least=0.05)


@few_and_many
@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_saved_dataset(tmp_path, name, rounds):
    import datasets

    folder = tmp_path / "saved"
    data = datasets.Dataset.from_list(PAIRS).cast_column("label", datasets.ClassLabel(names=["a", "b", "c"]))
    data.save_to_disk(folder)

    def read():
        for rows in read_dataset(str(folder)).values():
            assert [str(row).encode() for row in rows]

    refusals(folder / name, read, rounds, named=str(folder), least=0.1)
