"""`datasets` sets saved on disk: class names, hidden labels, and a clear refusal without a network."""

import datasets
import pytest

from finetuning.examples.dataset_records import read_dataset
from finetuning.recipes.texts.glue_tasks import GLUE_TASKS, from_dataset

FEATURES = datasets.Features(
    {
        "sentence": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["unacceptable", "acceptable"]),
        "idx": datasets.Value("int32"),
    }
)


@pytest.fixture
def saved(tmp_path):
    rows = {"sentence": ["It rains.", "Rains it the."], "label": [1, 0], "idx": [5, 6]}
    hidden = {"sentence": ["It pours."], "label": [-1], "idx": [0]}
    splits = {"train": rows, "validation": rows, "test": hidden}
    made = {name: datasets.Dataset.from_dict(content, features=FEATURES) for name, content in splits.items()}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "cola")
    return str(tmp_path / "cola")


def test_class_numbers_become_names_and_hidden_labels_none(saved):
    found = read_dataset(saved)
    assert found["train"][0] == {"sentence": "It rains.", "label": "acceptable", "idx": 5}
    assert found["test"][0]["label"] is None


def test_glue_reads_its_own_labels_from_the_numbers(saved):
    found = from_dataset(GLUE_TASKS["cola"], read_dataset(saved, class_names=False))
    assert [(one.example_id, one.label) for one in found["validation"]] == [("5", "1"), ("6", "0")]
    assert found["test"][0].label is None


def test_a_single_saved_split_counts_as_train(tmp_path):
    datasets.Dataset.from_dict({"text": ["a"], "label": ["x"]}).save_to_disk(tmp_path / "one")
    assert read_dataset(str(tmp_path / "one")) == {"train": [{"text": "a", "label": "x"}]}


def test_a_set_that_is_nowhere_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match=r"--dataset_name no-such/set.*--train_file"):
        read_dataset("no-such/set")
