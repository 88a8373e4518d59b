"""Rows find their example by id, each exactly once; files are whole or not there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetuning.examples.collapse import collapse_reason, likely_cause, normalised_entropy
from finetuning.examples.predictions import RowCollector, require_each_id_once, write_csv, write_finite_json
from finetuning.examples.preflight import Preflight, note_label_balance, note_shared_texts
from finetuning.loop.run_log import RunLog, closing_table, read_journal
from gap.cells.store import write_predictions


def features(*keys):
    return [{"example_id": name, "window": window, "input_ids": [1]} for name, window in keys]


@given(st.permutations(range(7)), st.integers(1, 4))
def test_rows_find_their_place_whatever_their_order(order, batch_rows):
    rows = features(("a", 0), ("a", 1), ("b", 0), ("c", 0), ("c", 1), ("c", 2), ("d", 0))
    collector = RowCollector(rows)
    for start in range(0, 7, batch_rows):
        part = order[start : start + batch_rows]
        values = torch.tensor([[float(i), -float(i)] for i in part] + [[99.0, 99.0]] * 2)  # fillers at the end
        collector.add([rows[i] for i in part], {"x": values})
    assert np.array_equal(collector.gather()["x"], [[i, -i] for i in range(7)])


def test_a_row_that_is_missing_or_doubled_is_found():
    rows = features(("a", 0), ("b", 0))
    collector = RowCollector(rows)
    collector.add(rows[:1], {"x": torch.ones(1)})
    with pytest.raises(AssertionError, match="1 rows were not predicted exactly once"):
        collector.gather()
    collector.add(rows, {"x": torch.ones(2)})
    with pytest.raises(AssertionError, match="not predicted exactly once"):
        collector.gather()
    with pytest.raises(ValueError, match="ids must be unique"):
        RowCollector(features(("a", 0), ("a", 0)))


def test_predictions_must_be_for_exactly_the_examples():
    require_each_id_once({"a": 1, "b": 2}, ["b", "a"])
    for predictions, ids in (({"a": 1}, ["a", "b"]), ({"a": 1, "b": 2}, ["a"]), ({"a": 1}, ["a", "a"])):
        with pytest.raises(AssertionError):
            require_each_id_once(predictions, ids)


def test_files_are_finite_json_and_proper_csv(tmp_path):
    write_finite_json(
        tmp_path / "d" / "f.json", {"a": float("nan"), "b": [np.float64(1.5), np.int64(2)], "ü": float("-inf")}
    )
    assert json.loads((tmp_path / "d" / "f.json").read_text("utf-8")) == {"a": None, "b": [1.5, 2], "ü": None}
    write_csv(tmp_path / "f.csv", ["id", "answer"], [["a", 'with "quotes", and\nlines']])
    assert (tmp_path / "f.csv").read_bytes() == b'id,answer\na,"with ""quotes"", and\nlines"\n'
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_finite_json(path, {"new": 1}),
        lambda path: write_csv(path, ["id"], [["new"]]),
        lambda path: write_predictions(path, [{"id": "new", "score": 1.0}]),
    ],
)
def test_results_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch, write):
    synced, path = [], tmp_path / "results"
    path.write_text("old")

    def cut_off(source, target):
        assert synced == [str(source)]
        assert "new" in Path(source).read_text()
        raise OSError("the power is off")

    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    monkeypatch.setattr(os, "replace", cut_off)
    with pytest.raises(OSError, match="power"):
        write(path)
    assert path.read_text() == "old"


def test_a_row_that_cannot_be_made_leaves_the_old_csv(tmp_path):
    def rows():
        yield ["b"]
        raise ValueError("no such row")

    write_csv(tmp_path / "f.csv", ["id"], [["a"]])
    with pytest.raises(ValueError, match="no such row"):
        write_csv(tmp_path / "f.csv", ["id"], rows())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("f.csv", "id\na\n")]


def test_the_journal_is_on_the_disk_when_it_is_flushed(tmp_path, monkeypatch):
    synced = []
    log = RunLog(tmp_path, is_main=True, total_updates=2)
    log.update(1, {"loss": 1.0})
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    log.flush()
    assert synced == [str(tmp_path / "journal.jsonl")]
    assert (tmp_path / "journal.jsonl").read_text() == '{"update": 1, "loss": 1.0}\n'
    log.close()


@pytest.mark.parametrize(
    ("labels", "score", "majority", "collapsed"),
    [
        (["a"] * 100, 0.5, 0.5, True),
        (["a"] * 100, 0.2, None, True),  # one answer to all, whatever it scores
        (["a"] * 100, 1.0, 1.0, False),  # all right, with one answer
        (["a"] * 95 + ["b"] * 5, 0.5, 0.5, True),
        (["a"] * 95 + ["b"] * 5, 0.55, 0.5, False),
        (["a", "b"] * 50, 0.5, 0.5, False),  # weak, not constant
        (["a"], 0.0, 0.0, False),
    ],
)
def test_collapse_is_told_from_weakness(labels, score, majority, collapsed):
    assert (collapse_reason(labels, score, majority) is not None) == collapsed


def test_entropy_and_cause():
    assert normalised_entropy(["a", "b"] * 10) == pytest.approx(1.0)
    assert normalised_entropy(["a"] * 10) == 0.0
    assert "too high" in likely_cause(1e-3, 32, hidden_size=768, updates=500)
    assert "too low" in likely_cause(1e-6, 32, hidden_size=768, updates=500)
    assert "fits" in likely_cause(3e-5, 16, hidden_size=768, updates=500)
    assert "fits" in likely_cause(1e-3, 32, hidden_size=64, updates=500)  # narrow models bear more
    assert "too low" in likely_cause(5e-5, 32, hidden_size=128, updates=500)
    few = likely_cause(5e-5, 32, hidden_size=768, updates=5)
    assert few == "it made only 5 updates: train longer"
    assert "higher learning rate (5e-05 at 32 rows" in likely_cause(5e-5, 32, hidden_size=128, updates=1)
    assert "too high" in likely_cause(1e-2, 32, hidden_size=128, updates=5)


def test_preflight_says_what_misleads():
    found = Preflight()
    note_shared_texts(found, {"train": ["x", "x", "y"], "test": ["x", "y", "z"]})
    note_label_balance(found, {"train": ["1"] * 19 + ["0"], "test": ["1", "0"]})
    assert found.figures["preflight_train_repeated_texts"] == 1
    assert found.figures["preflight_train_test_shared_texts"] == 2
    assert found.figures["preflight_train_majority_share"] == 0.95
    assert "2 texts occur both in train and in test" in "\n".join(found.lines())
    assert any("95.0% of train has the label '1'" in line for line in found.lines())
    assert "train majority share 95.0%" in found.lines()[-1]
    found.note("train_rows", 12345)
    assert found.lines()[-1].startswith("preflight: ")
    assert found.lines()[-1].endswith("train rows 12,345")


def test_a_resumed_journal_forgets_what_will_be_done_again(tmp_path):
    log = RunLog(tmp_path, is_main=True, total_updates=4)
    for update in (1, 2, 3):
        log.update(update, {"loss": float(update), "learning_rate": 0.1})
    log.close()
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"update": 4, "lo')  # torn by a kill
    assert [line["update"] for line in read_journal(tmp_path / "journal.jsonl")] == [1, 2, 3]
    again = RunLog(tmp_path, is_main=True, total_updates=4, updates=2)
    again.update(3, {"loss": float("nan")})
    again.close()
    assert [(line["update"], line["loss"]) for line in read_journal(tmp_path / "journal.jsonl")] == [
        (1, 1.0),
        (2, 2.0),
        (3, None),
    ]
    silent = RunLog(tmp_path / "other", is_main=False, total_updates=4)
    silent.update(1, {"loss": 0.0})
    silent.close()
    assert not (tmp_path / "other").exists()


def test_the_closing_table_shows_figures_only():
    table = closing_table("qa", {"eval_f1": 81.23456, "status": "done", "history": [1], "seconds": None})
    assert table.splitlines() == ["qa", "--", "eval_f1  81.2346", "status   done"]
    results = {
        "schema_version": 1,
        "test_f1": 0.5,
        "epoch": 3.0,
        "updates": 6,
        "train_seconds": 1.5,
        "fingerprint": "a",
    }
    assert [line.split() for line in closing_table("qa", results).splitlines()[2:]] == [
        ["test_f1", "0.5000"],
        ["epoch", "3"],
        ["updates", "6"],
        ["train_seconds", "1.5000"],
    ]
    assert closing_table("qa", {**results, "updates": 0}).splitlines()[2:] == ["test_f1  0.5000"]
