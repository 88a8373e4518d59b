"""series.json: written atomically, read with suspicion."""

import json

import pytest

from pretraining.publication import amount_name
from pretraining.series import FIELDS, add_to_series, read_series


def entry(kind, budget, **changes):
    values = dict.fromkeys(FIELDS, 0)
    return {**values, "path": f"series/{kind}-{budget}", "kind": kind, "budget_tokens": budget, **changes}


def test_entries_are_ordered_and_replaced_by_path(tmp_path):
    path = tmp_path / "series.json"
    for kind, budget in (("annealed", 200), ("raw", 200), ("raw", 0), ("annealed", 100)):
        add_to_series(path, entry(kind, budget))
    # A budget in hours is another number of tokens each time: the path is what stays.
    add_to_series(path, entry("annealed", 200, budget_tokens=230, validation_loss=1.5))
    listed = [(item["kind"], item["budget_tokens"], item["validation_loss"]) for item in read_series(path)]
    assert listed == [("raw", 0, 0), ("annealed", 100, 0), ("raw", 200, 0), ("annealed", 230, 1.5)]


def test_paths_come_back_absolute_and_the_directory_may_be_named(tmp_path):
    add_to_series(tmp_path / "series.json", entry("raw", 0))
    assert read_series(tmp_path)[0]["path"] == str(tmp_path / "series" / "raw-0")


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "series/../../x"])
def test_a_path_that_leaves_the_directory_is_refused(tmp_path, path):
    add_to_series(tmp_path / "series.json", entry("raw", 0, path=path))
    with pytest.raises(ValueError, match="outside"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"schema_version": 2, "checkpoints": []}', "[" * 100_000, '{"schema_version": 1']
)
def test_another_schema_or_no_json_is_refused(tmp_path, content):
    (tmp_path / "series.json").write_text(content)
    with pytest.raises(ValueError, match=r"series\.json"):
        read_series(tmp_path)


def test_a_missing_field_or_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="is not there"):
        read_series(tmp_path)
    incomplete = entry("raw", 0)
    del incomplete["flops"]
    (tmp_path / "series.json").write_text(json.dumps({"schema_version": 1, "checkpoints": [incomplete]}))
    with pytest.raises(ValueError, match="lacks flops"):
        read_series(tmp_path)


def test_amounts_as_parts_of_names():
    assert [amount_name(amount) for amount in (0.0, 1e5, 1234567.8, 0.05, 2e18)] == [
        "0",
        "100000",
        "1234568",
        "0p05",
        "2000000000000000000",
    ]
