"""glue.py on files laid out as GLUE is downloaded: all columns, two MNLI sets, QQP's torn lines, MRPC's originals."""

import csv
import json
import os
import random

import pytest
from tiny_examples import write_tiny_model

from finetuning import glue
from finetuning.recipes.texts.glue_tasks import GLUE_TASKS, MRPC_COLUMNS, read_glue

FAST = ["--num_train_epochs", "1", "--learning_rate", "0.01", "--report_to", "none", "--save_model", "false"]
PARSES = ["sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse"]
MNLI = ["index", "promptID", "pairID", "genre", *PARSES, "sentence1", "sentence2"]
QQP = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
WORDS = ["good", "bad", "film", "plot", "the", "fine", "dull"]
NLI_LABELS = ("entailment", "neutral", "contradiction")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})


def text(random_source, number):
    return f"{' '.join(random_source.choices(WORDS, k=4))} {number}"


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def write_mnli(root):
    """Columns of the official files: one annotator's label in train, five in dev, none in test."""
    source = random.Random(1)

    def rows(count, annotators, *, labelled):
        for number in range(count):
            parses = ["( the film )"] * 2 + ["(ROOT (NP (DT the) (NN film)))"] * 2
            texts = [text(source, number), text(source, number)]
            gold = [NLI_LABELS[number % 3]] if labelled else []
            yield [str(number), f"{number}0", f"{number}0c", "fiction", *parses, *texts, *gold * annotators, *gold]

    for stem, count, annotators in (("train", 30, 1), ("dev_matched", 9, 5), ("dev_mismatched", 6, 5)):
        header = [*MNLI, *(f"label{number}" for number in range(1, annotators + 1)), "gold_label"]
        write(root / "MNLI" / f"{stem}.tsv", header, *rows(count, annotators, labelled=True))
    for stem, count in (("test_matched", 7), ("test_mismatched", 5)):
        write(root / "MNLI" / f"{stem}.tsv", MNLI, *rows(count, 0, labelled=False))
    diagnostic = [[str(number), text(source, number), text(source, number)] for number in range(4)]
    write(root / "diagnostic" / "diagnostic.tsv", ["index", "sentence1", "sentence2"], *diagnostic)


def write_qqp(root):
    """Quotes that are never closed, a question over two lines, missing fields, a tab too many."""
    rows = [
        [str(100 + n), str(2 * n), str(2 * n + 1), f'Is the film "good {n}', f"the plot {n}?", "01"[n % 2]]
        for n in range(24)
    ]
    torn = [["200", "7", "8", '"What is', ""][:4], ['good?"', "fine", "1"], ["201", "9", "9", "bad?", "dull?"], [""]]
    torn += [["202", "9", "9", "bad", "a tab", "too many", "0"], ["203"]]
    write(root / "QQP" / "train.tsv", QQP, *rows[:10], *torn, *rows[10:])
    write(root / "QQP" / "dev.tsv", QQP, *rows[:8])
    test = [[str(n), f'"why {n}', f'the "film" {n}"'] for n in range(6)]
    write(root / "QQP" / "test.tsv", ["id", "question1", "question2"], *test)


def write_qnli(root):
    header = ["index", "question", "sentence", "label"]
    labels = ("entailment", "not_entailment")
    for stem, count in (("train", 24), ("dev", 8)):
        rows = [[str(n), f"Is the film good {n} ?", f'the plot, "fine" {n} .', labels[n % 2]] for n in range(count)]
        write(root / "QNLI" / f"{stem}.tsv", header, *rows)
    write(root / "QNLI" / "test.tsv", header[:3], *([str(n), f"the film {n} ?", f"a plot {n} ."] for n in range(5)))


def write_mrpc(root, *, header=True, ending=".txt", train_pairs=40):
    source = random.Random(2)

    def rows(count, first):
        for n in range(first, first + count):
            yield ["01"[n % 2], str(1000 + n), str(2000 + n), f'the "film {n} {text(source, n)}', text(source, n)]

    top = [["\ufeffQuality", *MRPC_COLUMNS[1:]]] if header else []
    write(root / "MRPC" / f"msr_paraphrase_train{ending}", *top, *rows(train_pairs, 0))
    write(root / "MRPC" / f"msr_paraphrase_test{ending}", *top, *rows(6, 500))


def submitted(out, name):
    header, *lines = (out / "submission" / name).read_text().splitlines()
    assert header == "index\tprediction"
    return dict(line.split("\t") for line in lines)


@pytest.mark.slow
def test_the_downloads_are_trained_scored_and_submitted(tmp_path, capsys, caplog):
    root, out = tmp_path / "glue", tmp_path / "out"
    for write_task in (write_mnli, write_qqp, write_qnli, write_mrpc):
        write_task(root)
    arguments = ["--task_name", "mnli,qqp,qnli,mrpc", "--data_dir", str(root), "--output_dir", str(out), *FAST]
    assert glue.main([*arguments, "--model_name_or_path", write_tiny_model(tmp_path / "model")]) == 0
    expected = {
        "MNLI-m.tsv": (7, NLI_LABELS), "MNLI-mm.tsv": (5, NLI_LABELS), "AX.tsv": (4, NLI_LABELS),
        "QQP.tsv": (6, ("0", "1")), "QNLI.tsv": (5, ("entailment", "not_entailment")), "MRPC.tsv": (6, ("0", "1")),
    }  # fmt: skip
    assert {file.name for file in (out / "submission").iterdir()} == set(expected)
    for name, (count, labels) in expected.items():
        answers = submitted(out, name)
        assert list(answers) == [str(number) for number in range(count)], name
        assert set(answers.values()) <= set(labels)
    for split, name in (("", "MNLI-m.tsv"), ("test_mismatched", "MNLI-mm.tsv")):
        with (out / "mnli" / split / "predictions.csv").open(newline="") as file:
            assert {row["id"]: row["prediction"] for row in csv.DictReader(file)} == submitted(out, name)
    results = json.loads((out / "mnli" / "all_results.json").read_text())
    for split, key, count in (
        ("validation", "eval_accuracy", 9),
        ("validation_mismatched", "eval_mismatched_accuracy", 6),
    ):
        with (out / "mnli" / split / "predictions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == count
        right = sum(row["prediction"] == NLI_LABELS[int(row["id"]) % 3] for row in rows)
        assert results[key] == pytest.approx(right / count)
    assert "matched acc / mismatched acc" in capsys.readouterr().out
    assert "train.tsv: 5 lines without exactly 6 fields were dropped, the first is line 12" in caplog.text


def test_torn_lines_of_qqp_are_counted_and_never_joined_with_others(tmp_path, caplog):
    write_qqp(tmp_path)
    splits = read_glue(GLUE_TASKS["qqp"], tmp_path)
    assert [one.example_id for one in splits["train"]] == [str(100 + n) for n in range(24)]
    assert {one.text for one in splits["train"]} == {f'Is the film "good {n}' for n in range(24)}
    assert [(one.text, one.text_pair) for one in splits["test"]] == [
        (f'"why {n}', f'the "film" {n}"') for n in range(6)
    ]
    assert "missing" not in caplog.text
    lines = (tmp_path / "QQP" / "test.tsv").read_text().splitlines()
    lines[3] = "2\ttorn"
    (tmp_path / "QQP" / "test.tsv").write_text("\n".join(lines) + "\n")
    assert len(read_glue(GLUE_TASKS["qqp"], tmp_path)["test"]) == 5
    assert "test.tsv: 1 row numbers are missing (the first is 2), so the submission lacks them" in caplog.text


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("ending", [".txt", ".tsv"])
def test_mrpc_as_microsoft_and_senteval_have_it_gets_a_dev_set(tmp_path, caplog, header, ending):
    write_mrpc(tmp_path, header=header, ending=ending)
    splits = read_glue(GLUE_TASKS["mrpc"], tmp_path)
    assert {name: len(examples) for name, examples in splits.items()} == {"train": 36, "validation": 4, "test": 6}
    assert "4 of its 40 pairs, picked by a hash of their ids, are held out" in caplog.text
    assert read_glue(GLUE_TASKS["mrpc"], tmp_path / "MRPC") == splits
    both = [*splits["train"], *splits["validation"]]
    assert sorted(int(one.example_id) for one in both) == list(range(40))
    assert all(one.label == "01"[int(one.example_id) % 2] for one in both)
    assert [one.example_id for one in splits["test"]] == [str(n) for n in range(6)]
    assert {one.label for one in splits["test"]} == {None}
    assert splits["test"][0].text.startswith('the "film 500 ')
    # The choice goes by the ids, not by what else is in the file.
    write_mrpc(tmp_path, header=header, ending=ending, train_pairs=50)
    more = read_glue(GLUE_TASKS["mrpc"], tmp_path)["validation"]
    assert len({one.example_id for one in more} & {one.example_id for one in splits["validation"]}) >= 2


def test_glues_own_list_of_pairs_makes_its_dev_set(tmp_path, caplog):
    write_mrpc(tmp_path)
    write(tmp_path / "MRPC" / "dev_ids.tsv", *([str(1000 + n), str(2000 + n)] for n in (3, 8, 21)))
    splits = read_glue(GLUE_TASKS["mrpc"], tmp_path)
    assert [one.example_id for one in splits["validation"]] == ["3", "8", "21"]
    assert len(splits["train"]) == 37
    assert "held out" not in caplog.text
    write(tmp_path / "MRPC" / "dev_ids.tsv", ["1", "2"])
    with pytest.raises(ValueError, match=r"dev_ids.tsv: it lists 0 of 40 pairs of .*msr_paraphrase_train.txt"):
        read_glue(GLUE_TASKS["mrpc"], tmp_path)


def test_glues_files_go_before_the_originals_and_half_of_them_is_not_enough(tmp_path):
    write_mrpc(tmp_path)
    rows = [["1", "7", "8", "a", "b"]]
    write(tmp_path / "MRPC" / "train.tsv", MRPC_COLUMNS, *rows)
    with pytest.raises(ValueError, match=r"no dev.tsv"):
        read_glue(GLUE_TASKS["mrpc"], tmp_path)
    write(tmp_path / "MRPC" / "dev.tsv", MRPC_COLUMNS, *rows)
    assert {name: len(examples) for name, examples in read_glue(GLUE_TASKS["mrpc"], tmp_path).items()} == {
        "train": 1, "validation": 1,
    }  # fmt: skip
    (tmp_path / "one").mkdir()
    write_mrpc(tmp_path / "one", train_pairs=1)
    with pytest.raises(ValueError, match="it has one pair"):
        read_glue(GLUE_TASKS["mrpc"], tmp_path / "one")


def test_mrpc_with_a_damaged_header_is_refused_by_name(tmp_path):
    write_mrpc(tmp_path)
    path = tmp_path / "MRPC" / "msr_paraphrase_train.txt"
    path.write_text(path.read_text().replace("#1 ID", "#1 Id", 1))
    with pytest.raises(ValueError, match=r"msr_paraphrase_train\.txt: its header has no column #1 ID"):
        read_glue(GLUE_TASKS["mrpc"], tmp_path)
