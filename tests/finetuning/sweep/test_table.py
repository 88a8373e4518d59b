"""The table of a sweep: order, paired intervals, confounded rows and failed cells."""

import csv
import io
import math
from dataclasses import replace

import pytest

from finetuning.sweep.sweep import make_sweep
from finetuning.sweep.table import CellOutcome, as_csv, as_markdown, metrics_of_rows, paired_interval, table_rows

SWEEP = make_sweep(
    {
        "recipe": "classification",
        "base": {"pooling": "cls", "weight_decay": 0.0, "model_name_or_path": "hub/model"},
        "list": [{}, {"pooling": "mean"}, {"pooling": "max", "weight_decay": 0.1}],
        "seeds": [0, 1, 2],
    }
)
SCORES = {0: (0.80, 0.82, 0.84), 1: (0.81, 0.84, 0.85), 2: (0.5, 0.5, None)}


def outcomes():
    found = {}
    for cell in SWEEP.cells:
        value = SCORES[cell.row][cell.seed]
        status = "failed" if value is None else "collapsed" if value == 0.5 else "done"
        scores = {} if value is None else {"eval_accuracy": value, "test_accuracy": value - 0.1}
        found[cell.fingerprint] = CellOutcome(status, scores, seconds=2.0)
    return found


def test_the_paired_interval_is_students_t():
    found = paired_interval({0: 0.81, 1: 0.84, 2: 0.85}, {0: 0.80, 1: 0.82, 2: 0.84})
    differences = [0.01, 0.02, 0.01]
    mean = sum(differences) / 3
    sd = math.sqrt(sum((one - mean) ** 2 for one in differences) / 2)
    half = 4.302652729911275 * sd / math.sqrt(3)  # the 97.5 % point of t with two degrees of freedom
    assert found.difference == pytest.approx(mean)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half))


def test_no_interval_under_three_shared_seeds():
    found = paired_interval({0: 0.8, 1: 0.9, 5: 0.7}, {0: 0.7, 1: 0.7, 6: 0.1})
    assert (found.difference, found.low, found.high, found.num_seeds) == (pytest.approx(0.15), None, None, 2)
    assert paired_interval({0: 0.8}, {1: 0.8}) is None


def test_rows_are_sorted_and_marked():
    rows = table_rows(SWEEP, outcomes(), metrics=["eval_accuracy"] * 3)
    assert [row["pooling"] for row in rows] == ["mean", "cls", "max"]
    assert [row["reference"] for row in rows] == ["", "yes", ""]
    assert rows[0]["mean"] == pytest.approx(0.8333, abs=1e-4)
    assert rows[0]["median"] == 0.84
    assert rows[0]["test_mean"] == pytest.approx(rows[0]["mean"] - 0.1)
    assert rows[0]["difference"] == pytest.approx(0.04 / 3)
    assert rows[1]["difference"] is None
    assert [row["confounded"] for row in rows] == ["", "", "pooling + weight_decay"]
    assert (rows[2]["collapsed"], rows[2]["failed"], rows[2]["seeds"], rows[2]["low"]) == (2, 1, 2, None)


def test_the_reference_can_be_the_best_row():
    rows = table_rows(SWEEP, outcomes(), metrics=["eval_accuracy"] * 3, compare_with="best")
    assert rows[0]["reference"] == "yes"
    assert rows[1]["difference"] == pytest.approx(-0.04 / 3)


def test_files_for_people_and_for_programs():
    rows = table_rows(SWEEP, outcomes(), metrics=["eval_accuracy"] * 3)
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert float(read[0]["mean"]) == rows[0]["mean"]
    text = as_markdown(SWEEP, rows, outcomes(), metrics=["eval_accuracy"] * 3)
    assert text.count("- collapsed: ") == 2
    assert "- failed: pooling=max, weight_decay=0.1, seed=2" in text
    assert "`confounded`" in text


def test_a_row_without_any_score_comes_last():
    empty = {key: CellOutcome("waiting", {}) for key in outcomes()}
    rows = table_rows(SWEEP, empty, metrics=["eval_accuracy"] * 3)
    assert [row["mean"] for row in rows] == [None, None, None]


def test_a_loss_ascends_and_the_best_is_the_lowest():
    """eval_loss 0.2 is better than 0.9."""
    found = {
        key: CellOutcome(one.status, {"eval_loss": 1 - one.scores.get("eval_accuracy", 0.5)})
        for key, one in outcomes().items()
    }
    rows = table_rows(SWEEP, found, metrics=["eval_loss"] * 3, compare_with="best")
    assert [row["pooling"] for row in rows] == ["mean", "cls", "max"]
    assert rows[0]["reference"] == "yes"


def test_losses_and_calibration_stand_beside_the_score_where_there_are_any():
    """Accuracy up while the loss goes up: the report had val_acc, test_acc and test_loss in one table."""
    found = outcomes()
    for cell in SWEEP.cells:
        extra = {"eval_loss": 0.1 * (cell.row + 1), "test_loss": 0.3, "test_expected_calibration_error": 0.05}
        found[cell.fingerprint] = CellOutcome("done", {**found[cell.fingerprint].scores, **extra})
    rows = table_rows(SWEEP, found, metrics=["eval_accuracy"] * 3)
    assert [row["eval_loss"] for row in rows] == pytest.approx([0.2, 0.1, 0.3])
    assert (rows[0]["test_loss"], rows[0]["test_expected_calibration_error"]) == pytest.approx((0.3, 0.05))
    assert "eval_expected_calibration_error" not in rows[0]
    assert "test_loss" not in table_rows(SWEEP, outcomes(), metrics=["eval_accuracy"] * 3)[0]


def test_tasks_are_scored_by_their_own_metrics_and_compared_within_themselves():
    sweep = make_sweep(
        {
            "recipe": "glue",
            "base": {"model_name_or_path": "hub/model"},
            "grid": {"task_name": ["sst2", "cola"], "pooling": ["cls", "mean"]},
        }
    )
    own = {"sst2": "eval_accuracy", "cola": "eval_matthews_correlation"}
    found = {}
    for cell in sweep.cells:
        row = sweep.rows[cell.row]
        score = {"sst2": 0.9, "cola": 0.5}[row["task_name"]] - 0.1 * (row["pooling"] == "cls")
        found[cell.fingerprint] = CellOutcome("done", {own[row["task_name"]]: score}, metric=own[row["task_name"]])
    metrics = metrics_of_rows(sweep, found)
    rows = table_rows(sweep, found, metrics=metrics)
    assert [(row["task_name"], row["pooling"], row["metric"]) for row in rows] == [
        ("sst2", "mean", "eval_accuracy"),
        ("sst2", "cls", "eval_accuracy"),
        ("cola", "mean", "eval_matthews_correlation"),
        ("cola", "cls", "eval_matthews_correlation"),
    ]
    assert [row["reference"] for row in rows] == ["", "yes", "", "yes"]
    assert [row["difference"] for row in rows] == [pytest.approx(0.1), None, pytest.approx(0.1), None]
    assert {row["confounded"] for row in rows} == {""}
    assert "by the mean of eval_accuracy or eval_matthews_correlation" in as_markdown(
        sweep, rows, found, metrics=metrics
    )


def test_the_sweeps_metric_goes_before_the_recipes_own():
    found = {key: CellOutcome(one.status, one.scores, metric="eval_f1") for key, one in outcomes().items()}
    assert metrics_of_rows(SWEEP, found) == ["eval_f1"] * 3
    assert metrics_of_rows(replace(SWEEP, metric="eval_accuracy"), found) == ["eval_accuracy"] * 3
    assert metrics_of_rows(SWEEP, {key: CellOutcome("waiting", {}) for key in found}) == [None] * 3
