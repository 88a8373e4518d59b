"""The official files of the nine tasks: made-up rows in their columns, and submissions in the server's format."""

import gzip
from pathlib import Path

import pytest

from finetuning.recipes.texts.glue_tasks import GLUE_TASKS, check_labels, from_dataset, read_glue, submission_lines
from finetuning.recipes.texts.labelled_text import LabelledText

PAIR_HEADER = "index\tsentence1\tsentence2\tlabel"
FILES = {
    "cola": {"train": "gj\t1\t\tIt rains.", "dev": "gj\t0\t*\tRains it the.", "test": "index\tsentence\n0\tIt pours."},
    "sst2": {
        "train": "sentence\tlabel\nfine \t1",
        "dev": "sentence\tlabel\ndull \t0",
        "test": "index\tsentence\n0\tso so",
    },
    "mrpc": {
        "train": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tA \"quoted\tb",
        "dev": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\ta\tb",
        "test": "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\ta\tb",
    },
    "stsb": {
        "train": "index\tgenre\tsentence1\tsentence2\tscore\n0\tg\ta\tb\t2.500",
        "dev": "index\tgenre\tsentence1\tsentence2\tscore\n3\tg\ta\tb\t5.000",
        "test": "index\tgenre\tsentence1\tsentence2\n9\tg\ta\tb",
    },
    "qqp": {
        "train": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n5\t1\t2\ta\tb\t0\ntorn line\n6\t1\t2\ta\tb\t1",
        "dev": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n7\t1\t2\ta\tb\t1",
        "test": "id\tquestion1\tquestion2\n0\ta\tb",
    },
    "mnli": {
        "train": "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta\tb\tneutral\tneutral",
        "dev_matched": "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta\tb\tneutral\tcontradiction",
        "dev_mismatched": "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta\tb\tneutral\tentailment",
        "test_matched": "index\tsentence1\tsentence2\n0\ta\tb",
        "test_mismatched": "index\tsentence1\tsentence2\n9\ta\tb",
    },
    "qnli": {
        "train": "index\tquestion\tsentence\tlabel\n0\ta?\tb\tentailment",
        "dev": "index\tquestion\tsentence\tlabel\n0\ta?\tb\tnot_entailment",
    },
    "rte": {"train": f"{PAIR_HEADER}\n0\ta\tb\tentailment", "dev": f"{PAIR_HEADER}\n8\ta\tb\tnot_entailment"},
    "wnli": {"train": f"{PAIR_HEADER}\n0\ta\tb\t1", "dev": f"{PAIR_HEADER}\n0\ta\tb\t0"},
}  # fmt: skip


def write(root: Path, name: str) -> Path:
    folder = root / GLUE_TASKS[name].folder
    folder.mkdir(parents=True)
    for stem, text in FILES[name].items():
        (folder / f"{stem}.tsv.gz").write_bytes(gzip.compress((text + "\n").encode()))
    return root


@pytest.mark.parametrize("name", sorted(GLUE_TASKS))
def test_every_task_reads_its_official_columns(tmp_path, name):
    task = GLUE_TASKS[name]
    splits = read_glue(task, write(tmp_path, name))
    assert "train" in splits
    assert "validation" in splits
    is_pair = task.columns.text_pair is not None
    for split, examples in splits.items():
        assert all((one.text_pair is not None) == is_pair for one in examples)
        assert all((one.label is None) == split.startswith("test") for one in examples)
    assert read_glue(task, tmp_path / task.folder) == splits


def test_details_of_the_files(tmp_path, caplog):
    for name in FILES:
        write(tmp_path, name)
    cola = read_glue(GLUE_TASKS["cola"], tmp_path)
    assert cola["train"] == [LabelledText("0", "It rains.", None, "1")]
    assert cola["test"] == [LabelledText("0", "It pours.")]
    assert read_glue(GLUE_TASKS["mrpc"], tmp_path)["train"][0].text == 'A "quoted'
    assert read_glue(GLUE_TASKS["rte"], tmp_path)["validation"][0].example_id == "8"
    assert [one.example_id for one in read_glue(GLUE_TASKS["qqp"], tmp_path)["train"]] == ["5", "6"]
    assert "1 lines without exactly 6 fields were dropped, the first is line 3" in caplog.text
    mnli = read_glue(GLUE_TASKS["mnli"], tmp_path)
    assert (mnli["validation"][0].label, mnli["validation_mismatched"][0].label) == ("contradiction", "entailment")


def test_a_missing_file_and_a_foreign_label_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no train\.tsv.*RTE needs it.*--data_dir"):
        read_glue(GLUE_TASKS["rte"], tmp_path)
    for name, label in (("cola", "2"), ("stsb", "5.1"), ("stsb", "high"), ("mnli", "-")):
        with pytest.raises(ValueError, match="row 0: the label is"):
            check_labels(GLUE_TASKS[name], [LabelledText("0", "a", "b", label)], "file")


def test_rows_of_datasets_become_the_same_labels():
    rows = [{"idx": 3, "premise": "a", "hypothesis": "b", "label": 2}]
    found = from_dataset(GLUE_TASKS["mnli"], {"train": rows, "validation_matched": rows, "test_matched": rows})
    assert found["train"] == found["validation"] == [LabelledText("3", "a", "b", "contradiction")]
    hidden = [{"idx": 0, "sentence1": "a", "sentence2": "b", "label": -1.0}]
    assert from_dataset(GLUE_TASKS["stsb"], {"test": hidden})["test"][0].label is None


def test_submissions_have_the_servers_names_and_range():
    assert submission_lines(GLUE_TASKS["rte"], {"0": "entailment", "1": "not_entailment"}) == [
        "index\tprediction",
        "0\tentailment",
        "1\tnot_entailment",
    ]
    assert submission_lines(GLUE_TASKS["stsb"], {"0": 5.7, "1": -0.2, "2": 2.5})[1:] == [
        "0\t5.000",
        "1\t0.000",
        "2\t2.500",
    ]
    with pytest.raises(ValueError, match="it must be entailment or not_entailment"):
        submission_lines(GLUE_TASKS["rte"], {"0": "1"})
    names = [file for task in GLUE_TASKS.values() for file in task.submissions.values()]
    assert sorted(names) == [
        "AX.tsv", "CoLA.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "MRPC.tsv", "QNLI.tsv", "QQP.tsv", "RTE.tsv", "SST-2.tsv",
        "STS-B.tsv", "WNLI.tsv",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "train", "dev"), [("cola", 8551, 1043), ("rte", 2490, 277), ("stsb", 5749, 1500)])
def test_the_real_files_hold_the_known_rows(real_data, name, train, dev):
    splits = read_glue(GLUE_TASKS[name], real_data / "glue")
    assert (len(splits["train"]), len(splits["validation"])) == (train, dev)
