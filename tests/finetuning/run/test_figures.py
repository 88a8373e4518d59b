"""Curves and diagrams: the numbers behind them by hand, and that pictures come out."""

import json

import numpy as np
import pytest

from finetuning.recipes.texts.metrics import expected_calibration_error, reliability
from finetuning.run.figures import cumulative_mean, curves_of, draw_curves, draw_reliability, mean_over_runs

LINES = [
    {"update": 1, "loss": 1.0, "accuracy": 0.0, "learning_rate": 0.1, "gradient_norm": 1.0},
    {"update": 2, "loss": 3.0, "accuracy": 1.0, "learning_rate": 0.2, "gradient_norm": 1.0},
    {"update": 2, "epoch": 1.0, "eval_accuracy": 0.5, "eval_loss": 0.7},
    {"update": 3, "loss": None, "accuracy": 0.5, "learning_rate": 0.1, "gradient_norm": None},
    {"update": 4, "loss": 8.0, "accuracy": 0.5, "learning_rate": 0.0, "gradient_norm": 1.0},
    {"update": 4, "epoch": 2.0, "eval_accuracy": 0.75, "eval_loss": 0.6},
]


def test_the_cumulative_mean_starts_anew_with_each_epoch():
    means = cumulative_mean([1.0, 3.0, 5.0, 8.0, 2.0], [1, 2, 3, 4, 5], [2, 4])
    assert means.tolist() == [1.0, 2.0, 5.0, 6.5, 2.0]


def test_skipped_updates_do_not_enter_the_mean():
    assert np.array_equal(cumulative_mean([np.nan, 4.0, np.nan], [1, 2, 3], []), [np.nan, 4.0, 4.0], equal_nan=True)


def test_journal_lines_become_curves():
    found = curves_of(LINES)
    assert found.updates.tolist() == [1, 2, 3, 4]
    assert found.measures == ["loss", "accuracy"]
    assert np.isnan(found.values["loss"][2])
    assert found.validation_updates.tolist() == [2, 4]
    assert found.validations["eval_accuracy"].tolist() == [0.5, 0.75]
    assert curves_of([]).measures == []


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5_000


def write_journal(directory):
    directory.mkdir()
    (directory / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))


def test_pictures_of_one_run_and_of_several(tmp_path):
    for name in ("seed 0", "seed 1"):
        write_journal(tmp_path / name)
    draw_curves({"seed 0": tmp_path / "seed 0"}, tmp_path / "one.png", title="one")
    both = {name: tmp_path / name for name in ("seed 0", "seed 1")}
    draw_curves(both, tmp_path / "figures" / "both.png", title="both", metric="accuracy")
    assert is_png(tmp_path / "one.png")
    assert is_png(tmp_path / "figures" / "both.png")


def test_a_reliability_diagram(tmp_path):
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(200, 3)), random.integers(0, 3, 200)
    error = expected_calibration_error(logits, labels)
    draw_reliability(reliability(logits, labels), error, tmp_path / "r.png", title="random")
    assert is_png(tmp_path / "r.png")


@pytest.mark.parametrize(
    ("runs", "entries"),
    [
        (["only"], ["each update", "mean since the epoch began", "validation"]),
        (["seed 0", "seed 1"], ["seed 0", "seed 1", "validation"]),
    ],
)
def test_every_line_of_the_loss_is_in_the_legend(tmp_path, monkeypatch, runs, entries):
    for name in runs:
        write_journal(tmp_path / name)
    figures = []
    monkeypatch.setattr("finetuning.run.figures._save", lambda figure, path: figures.append(figure))
    draw_curves({name: tmp_path / name for name in runs}, tmp_path / "curves.png", title="t")
    axis = figures[0].axes[0]
    legend = axis.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == entries
    assert {line.get_linestyle() for line in axis.get_lines()} == {line.get_linestyle() for line in legend.get_lines()}


def test_the_mean_over_seeds_ends_with_the_first_that_ends():
    updates, means = mean_over_runs([([1, 2, 3], [1.0, 2.0, 3.0]), ([1, 2], [3.0, 4.0])])
    assert (updates.tolist(), means.tolist()) == ([1, 2], [2.0, 3.0])


def test_a_grid_with_seeds_has_one_line_and_one_legend_entry_a_setting(tmp_path, monkeypatch):
    """Sixteen settings times three seeds: 48 lines in one colour scale and no legend said nothing."""
    settings = {f"setting {number}": [tmp_path / f"{number}-{seed}" for seed in range(3)] for number in range(16)}
    for places in settings.values():
        for place in places:
            write_journal(place)
    figures = []
    monkeypatch.setattr("finetuning.run.figures._save", lambda figure, path: figures.append(figure))
    draw_curves(settings, tmp_path / "curves.png", title="t")
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts == [*settings, "each seed: mean since the epoch began", "validation"]
    strong = [
        line for line in figures[0].axes[0].get_lines() if line.get_alpha() is None and line.get_linestyle() == "-"
    ]
    assert len({str(line.get_color()) for line in strong}) == len(strong) == 16
    expected = cumulative_mean([1.0, 3.0, np.nan, 8.0], [1, 2, 3, 4], [2, 4])
    assert np.array_equal(strong[0].get_ydata(), expected, equal_nan=True)
