"""Files of tagged sentences: what each format may hold, and what is refused with file and line."""

import bz2
import gzip
import json

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value

from finetuning.recipes.options.token_classification import TokenOptions
from finetuning.recipes.tokens.sentences import TaggedSentence, has_tags, sentences_from_rows, tag_names
from finetuning.recipes.tokens.tagged_files import is_tagged_file, read_tagged
from finetuning.recipes.tokens.token_run import read_splits

CONLLU = """\
# global.columns = ID FORM
# newdoc id = first
# sent_id = s-1
# text = Don't go
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVBP\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
2.1\tgone\tgo\tVERB\tVBN\t_\t_\t_\t_\t_
3\tgo\tgo\tVERB\t_\t_\t0\troot\t_\t_

# newdoc
# newpar
# sent_id = s-2
1\tA b\ta\tNOUN\tNN\t_\t0\troot\t_\t_
2\t#\t#\tSYM\tNN\t_\t1\tdep\t_\t_
"""


UPOS = {"ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT"}
UPOS |= {"SCONJ", "SYM", "VERB", "X"}


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_conllu_words_tags_documents_and_ids(tmp_path):
    first, second = read_tagged(write(tmp_path / "a.conllu", CONLLU))
    assert (first.id, first.words, first.tags) == ("s-1", ("Do", "n't", "go"), ("AUX", "PART", "VERB"))
    assert (second.id, second.words, second.tags) == ("s-2", ("A b", "#"), ("NOUN", "SYM"))
    assert first.document == "id first"
    assert second.document not in (None, first.document)
    xpos = read_tagged(tmp_path / "a.conllu", tag_column="xpos")
    assert xpos[0].tags == ("VBP", "RB", None)
    with pytest.raises(ValueError, match=r"--tag_column lemma: .*upos and xpos"):
        read_tagged(tmp_path / "a.conllu", tag_column="lemma")


def test_the_only_document_of_a_file_groups_nothing(tmp_path):
    text = "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\n\nrejects VBZ I-VP O\n"
    assert [one.document for one in read_tagged(write(tmp_path / "a.conll", text))] == [None, None]
    two = read_tagged(write(tmp_path / "b.conll", text + "\n" + text.replace("EU", "UN")))
    assert len({one.document for one in two}) == 2


def test_ids_of_sentences_without_one_do_not_meet_those_of_others(tmp_path):
    word = "1\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_\n\n"
    some = read_tagged(write(tmp_path / "a.conllu", f"# sent_id = 1\n{word}{word}"))
    assert [one.id for one in some] == ["1", "sentence 1"]
    assert [one.id for one in read_tagged(write(tmp_path / "b.conllu", word + word))] == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.conll", "1\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_\n", "rows are those of CoNLL-U: name it .conllu"),
        ("a.conll", "a O\rb O\r", "line 1 has a carriage return within"),
        ("a.conllu", "# text = a\r1\ta\ta\tX\tX\t_\t0\troot\t_\t_\n", "line 1 has a carriage return within"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(tmp_path, name, text, reason):
    (tmp_path / name).write_bytes(text.encode())
    with pytest.raises(ValueError, match=f"{name}: .*{reason}"):
        read_tagged(tmp_path / name)


def test_several_columns_of_tags_are_named(caplog):
    rows = [{"tokens": ["EU"], "pos_tags": ["NNP"], "ner_tags": ["B-ORG"]}]
    assert sentences_from_rows(rows, "rows")[0].tags == ("B-ORG",)
    assert "rows: tags are read from 'ner_tags'; there are also pos_tags (--tag_column)" in caplog.text
    assert sentences_from_rows(rows, "rows", "pos_tags")[0].tags == ("NNP",)


def test_a_document_without_a_name_is_called_by_its_content(tmp_path):
    """Else the first documents of two files would be one."""
    same, other = CONLLU.replace("first", "other"), CONLLU.replace("A b", "A c")
    documents = [read_tagged(write(tmp_path / "a.conllu", text))[1].document for text in (CONLLU, same, other)]
    assert documents[0] == documents[1] != documents[2]


def test_line_ends_of_windows_packed_files_and_a_byte_order_mark(tmp_path):
    expected = read_tagged(write(tmp_path / "a.conllu", CONLLU))
    windows = ("\ufeff" + CONLLU.replace("\n", "\r\n")).encode()
    for name, data in (
        ("w.conllu", windows),
        ("a.conllu.gz", gzip.compress(CONLLU.encode())),
        ("a.conllu.bz2", bz2.compress(windows)),
    ):
        (tmp_path / name).write_bytes(data)
        assert read_tagged(tmp_path / name) == expected
    (tmp_path / "torn.conllu.gz").write_bytes(gzip.compress(CONLLU.encode())[:-9])
    with pytest.raises(ValueError, match=r"torn\.conllu\.gz"):
        read_tagged(tmp_path / "torn.conllu.gz")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("2\tn't\tnot\tPART", "2\tn't\tPART", r"line 7 has 9 columns, 10 separated by tabs"),
        ("2\tn't", "4\tn't", r"line 7 is word '4' where word 2 of its sentence"),
        ("\n\n# newdoc\n# newpar\n# sent_id = s-2", "", r"line 10 is word '1' where word 4 .*blank line"),
        ("1\tDo", "1 Do", r"line 6 has 9 columns"),
        ("1\tDo", "1\t", r"line 6 has no word"),
        ("do\tAUX", "do\t", r"line 6 has no tag: write _"),
        ("s-2", "s-1", r"1 id given more than once, the first: s-1"),
    ],
)
def test_broken_conllu_is_refused_with_its_line(tmp_path, old, new, told):
    assert old in CONLLU
    with pytest.raises(ValueError, match=rf"a\.conllu: {told}"):
        read_tagged(write(tmp_path / "a.conllu", CONLLU.replace(old, new)))


COLUMNS = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\n\u200b NN I-NP O\n\n\n-DOCSTART- -X- O\n# NN B-NP O\n"


@pytest.mark.parametrize("blank", [" ", "\t"])
def test_columns_of_conll_2003(tmp_path, blank):
    first, second = read_tagged(write(tmp_path / "a.conll", COLUMNS.replace(" ", blank)))
    assert (first.words, first.tags) == (("EU", "\u200b"), ("B-ORG", "O"))
    assert (second.words, second.tags) == (("#",), ("O",))
    assert (first.id, second.id) == ("0", "1")
    assert first.document != second.document
    two = read_tagged(write(tmp_path / "b.bio", "New York\tB-LOC\n.\tO"))
    assert (two[0].words, two[0].tags, two[0].document) == (("New York", "."), ("B-LOC", "O"), None)
    bare = read_tagged(write(tmp_path / "c.conll", "one\ntwo\n"))
    assert (bare[0].tags, bare[0].label) == ((None, None), None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("EU B-ORG\nis\n", r"line 2 has 1 column, but line 1 has 2"),
        ("EU B-ORG\n\nis VBZ O\n", r"line 3 has 3 columns, but line 1 has 2"),
        ("# id = 3\nEU B-ORG\n", r"line 2 has 2 columns, but line 1 has 4.*no comments"),
        ("EU\tB-ORG\n\tO\n", r"line 2 has no word"),
        ("EU\tB-ORG\nis\t\n", r"line 2 has no tag"),
        ("-DOCSTART- O\n\n", r"no sentence in it"),
        ("", r"no sentence in it"),
    ],
)
def test_broken_columns_are_refused_with_their_line(tmp_path, text, told):
    with pytest.raises(ValueError, match=rf"a\.conll: {told}"):
        read_tagged(write(tmp_path / "a.conll", text))


def test_what_is_no_text_or_of_no_known_format_is_refused(tmp_path):
    (tmp_path / "a.conll").write_bytes(b"EU B-ORG\n\xff O\n")
    with pytest.raises(ValueError, match=r"a\.conll: byte 9 is not UTF-8"):
        read_tagged(tmp_path / "a.conll")
    assert read_tagged(tmp_path / "a.conll", on_bad_text="replace")[0].words == ("EU", "\ufffd")
    (tmp_path / "b.conllu").write_bytes(b"PAR1" + bytes(600))
    with pytest.raises(ValueError, match=r"b\.conllu is a parquet file"):
        read_tagged(tmp_path / "b.conllu")
    with pytest.raises(ValueError, match=r"a\.tags: unknown format; name the file \.conllu, \.conll"):
        read_tagged(tmp_path / "a.tags")
    names = ("a.conllu.xz", "train.txt", "a.jsonl.gz", "b.parquet", "a.pdf")
    assert [is_tagged_file(name) for name in names] == [True] * 4 + [False]


def test_rows_with_lists(tmp_path):
    rows = [
        {"id": "a", "tokens": ["one", "two"], "tags": ["X", None]},
        {"id": 7, "tokens": [], "tags": []},
        {"id": "c", "tokens": ["three"], "tags": [2]},
        {"id": "d", "tokens": ["four"]},
    ]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    found = read_tagged(path)
    assert found == [
        TaggedSentence("a", ("one", "two"), ("X", None)),
        TaggedSentence("7", (), ()),
        TaggedSentence("c", ("three",), ("2",)),
        TaggedSentence("d", ("four",), (None,)),
    ]
    assert [one.label is None for one in found] == [False, True, False, True]
    assert sentences_from_rows([{"words": ["a"], "mine": ["Y"]}], "here", "mine")[0].tags == ("Y",)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"tokens": ["a", "b"], "tags": ["X"]}, r"here, row 1: 2 words but 1 tag"),
        ({"tokens": "a b", "tags": ["X", "Y"]}, r"here, row 1: 'tokens' is 'a b'; a list is needed"),
        ({"tokens": ["a"], "tags": "X"}, r"here, row 1: 'tags' is 'X'; a list is needed"),
        ({"tokens": ["a", 3], "tags": ["X", "Y"]}, r"here, row 1: a word of 'tokens' is 3; every word must be text"),
        ({"tokens": ["a"], "tags": [["X"]]}, r"here, row 1: the label is \['X'\]"),
        ({"id": "0", "tokens": ["a"], "tags": ["X"]}, r"here: 1 id given more than once, the first: 0"),
        ({"tags": ["X"]}, r"here, row 1: 'tokens' is None"),
    ],
)
def test_broken_rows_are_refused_with_their_number(row, told):
    with pytest.raises(ValueError, match=told):
        sentences_from_rows([{"id": "0", "tokens": ["z"], "tags": ["X"]}, row], "here")


def test_columns_that_are_missing_are_named():
    with pytest.raises(ValueError, match=r"here: no column of words among text, tags; call it tokens or words"):
        sentences_from_rows([{"text": "a", "tags": ["X"]}], "here")
    with pytest.raises(ValueError, match=r"here: no column 'upos'; the columns are tokens, tags"):
        sentences_from_rows([{"tokens": ["a"], "tags": ["X"]}], "here", "upos")


def test_a_saved_data_set_with_class_labels_or_strings(tmp_path):
    names = ["O", "B-PER"]
    rows = {"id": ["a", "b"], "tokens": [["x", "y"], ["z"]], "ner_tags": [[0, 1], [-100]]}
    features = Features(
        {"id": Value("string"), "tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=names))}
    )
    plain = Dataset.from_dict({"tokens": [["q"]], "ner_tags": [["B-PER"]]})
    DatasetDict({"train": Dataset.from_dict(rows, features=features), "dev": plain}).save_to_disk(tmp_path / "saved")
    splits = read_splits(TokenOptions(dataset_name=str(tmp_path / "saved")), {})
    assert [one.tags for one in splits["train"]] == [("O", "B-PER"), (None,)]
    assert [one.tags for one in splits["validation"]] == [("B-PER",)]
    Dataset.from_dict({**rows, "ner_tags": [[0, 0], [0]]}, features=features).save_to_disk(tmp_path / "train")
    assert read_splits(TokenOptions(dataset_name=str(tmp_path / "train")), {}).keys() == {"train"}


def test_tags_by_frequency_and_sets_that_are_tagged():
    some = [TaggedSentence("a", ("1", "2", "3"), ("B", "A", "A")), TaggedSentence("b", ("4",), (None,))]
    assert tag_names([*some, TaggedSentence("c", ("5",), ("C",))]) == ["A", "B", "C"]
    assert has_tags(some[:1], "validation")
    assert not has_tags(some[1:], "test")
    assert not has_tags([TaggedSentence("e", (), ())], "test")
    for split, sentences in (("test", some), ("validation", some[1:])):
        with pytest.raises(ValueError, match=rf"the {split} set has 1 of \d sentences without a tag, the first: b"):
            has_tags(sentences, split)


@pytest.mark.parametrize(
    ("name", "sentences", "words", "documents"),
    [("en_ewt-ud-dev", 2001, 25147, 318), ("en_ewt-ud-test", 2077, 25094, 316), ("zh_gsdsimp-ud-dev", 500, 12663, 0)],
)
def test_universal_dependencies_are_read_whole(real_data, name, sentences, words, documents):
    """Counted by other means: lines that begin with a whole number and a tab, and those that begin `# newdoc`."""
    path = real_data / "ud" / f"{name}.conllu.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    cells = [line.split("\t") for line in lines if line.split("\t")[0].isdigit()]
    for column, tag_column in ((3, "upos"), (4, "xpos")):
        found = read_tagged(path, tag_column=tag_column)
        assert [word for one in found for word in one.words] == [row[1] for row in cells]
        assert [tag or "_" for one in found for tag in one.tags] == [row[column] for row in cells]
    assert (len(found), len(cells), len({one.document for one in found} - {None})) == (sentences, words, documents)
    assert sum(line.startswith("# newdoc") for line in lines) == documents
    assert [one.id for one in found] == [line.split(" = ")[1] for line in lines if line.startswith("# sent_id")]
    assert set(tag_names(read_tagged(path))) <= UPOS
