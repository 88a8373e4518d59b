"""series.json: written atomically, validated when read."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretraining.checkpoints.series import FIELDS, add_to_series, read_series
from pretraining.publishing.publication import amount_name


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
    with pytest.raises(ValueError, match="does not exist"):
        read_series(tmp_path)
    incomplete = entry("raw", 0)
    del incomplete["flops"]
    (tmp_path / "series.json").write_text(json.dumps({"schema_version": 1, "checkpoints": [incomplete]}))
    with pytest.raises(ValueError, match="lacks flops"):
        read_series(tmp_path)


WRONG = {
    "budget_tokens": ["3", None, True, -1, float("nan"), float("inf"), 1e300, 10**400, [], {}],
    "tokens_seen": ["3", None, float("nan"), -1],
    "flops": ["3", float("-inf")],
    "seconds": [None, float("nan")],
    "validation_loss": ["low", True, []],
    "pretraining_seed": [1.5, -1, None, 1 << 63],
    "kind": ["final", None, 3],
    "path": ["", ".", None, 7, "a\0b", "\ud800", "x" * 5000, ["series"]],
    "devices": [0, "2", 1.5],
    "budget": [float("nan"), "1"],
    "budget_unit": ["days", 1],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_a_value_that_no_run_writes_is_named(tmp_path, field, value):
    content = {"schema_version": 1, "checkpoints": [entry("raw", 0), {**entry("raw", 1), field: value}]}
    (tmp_path / "series.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"series\.json: ") as caught:
        read_series(tmp_path)
    assert "\n" not in str(caught.value)
    assert field in str(caught.value) or field == "path"
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("checkpoints", [None, {}, "series", 3, [None], [[]], ["series/raw-0"], [3]])
def test_a_list_of_anything_but_objects_is_one_message(tmp_path, checkpoints):
    (tmp_path / "series.json").write_text(json.dumps({"schema_version": 1, "checkpoints": checkpoints}))
    with pytest.raises(ValueError, match=r"series\.json: checkpoints(\[0\])? is .*: it must be "):
        read_series(tmp_path)


def test_nothing_stands_there_twice(tmp_path):
    path = tmp_path / "series.json"
    for second in (entry("raw", 0), entry("annealed", 5, path="series/../series/raw-0"), entry("raw", 0, path="other")):
        path.write_text(json.dumps({"schema_version": 1, "checkpoints": [entry("raw", 0), second]}))
        with pytest.raises(ValueError, match=r"series\.json lists .* twice"):
            read_series(path)
    path.write_text('{"schema_version": 1, "checkpoints": [], "checkpoints": []}')
    with pytest.raises(ValueError, match=r"series\.json .*key checkpoints appears twice"):
        read_series(path)
    two = [{**entry("raw", 7, path=f"series/{hours}"), "budget": hours, "budget_unit": "hours"} for hours in (0.5, 0.6)]
    path.write_text(json.dumps({"schema_version": 1, "checkpoints": two}))
    assert len(read_series(path)) == 2  # budgets of hours may meet at one number of tokens


def test_a_damaged_list_is_not_added_to(tmp_path):
    path = tmp_path / "series.json"
    for content in ('{"schema_version": 1}', "[]", '{"schema_version": 1, "checkpoints": [{"path": "series/raw-0"}]}'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"series\.json"):
            add_to_series(path, entry("raw", 0))
        assert path.read_text() == content


def test_a_figure_that_is_not_finite_says_nothing_and_what_is_new_is_kept(tmp_path):
    row = entry("raw", 0, validation_loss=float("nan"), validation_accuracy=float("inf"), later={"a": [1]}, devices=2)
    add_to_series(tmp_path / "series.json", row)
    found = read_series(tmp_path)[0]
    assert (found["validation_loss"], found["validation_accuracy"]) == (None, None)
    assert (found["later"], found["devices"]) == ({"a": [1]}, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FIELDS, "budget", "x"]), inner),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*FIELDS, "budget", "budget_unit", "devices", "x"]), JSON, max_size=3))
def test_whatever_stands_there_it_is_a_list_of_checkpoints_or_a_clear_refusal(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "series.json"
    path.write_text(json.dumps({"schema_version": 1, "checkpoints": [entry("raw", 0), {**entry("raw", 1), **changes}]}))
    found, refusal = [], None
    try:
        found = read_series(path)
    except ValueError as error:
        refusal = str(error)
    assert refusal is None or (str(path) in refusal and "\n" not in refusal)
    assert all(Path(one["path"]).is_relative_to(path.parent.resolve()) for one in found)
    assert all(round(float(one["budget_tokens"])) >= 0 and int(one["pretraining_seed"]) >= 0 for one in found)


def test_amounts_as_parts_of_names():
    assert [amount_name(amount) for amount in (0.0, 1e5, 1234567.8, 0.05, 2e18)] == [
        "0",
        "100000",
        "1234568",
        "0p05",
        "2000000000000000000",
    ]
