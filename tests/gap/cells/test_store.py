"""scores.jsonl: appended durably, torn lines tolerated, duplicates refused; predictions joined by id."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from gap.cells.store import (
    Cell,
    append_score,
    fingerprint,
    read_predictions,
    read_scores,
    reported_cells,
    write_predictions,
)

CELL = Cell("a" * 64, "qa", "annealed", 1000, 0, 0, "exact_match", 0.5, details={"learning_rate": 1e-4})


def test_what_is_appended_is_read_back_with_unknown_keys_as_details(tmp_path: Path) -> None:
    append_score(tmp_path / "scores.jsonl", CELL)
    assert read_scores(tmp_path / "scores.jsonl") == [CELL]
    record = json.loads((tmp_path / "scores.jsonl").read_text())
    assert record["schema_version"] == 1
    assert record["learning_rate"] == 1e-4


def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_append(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    append_score(path, CELL)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert read_scores(path) == [CELL]
    append_score(path, replace(CELL, fingerprint="b" * 64, finetuning_seed=1))
    assert [cell.fingerprint[0] for cell in read_scores(path)] == ["a", "b"]


def test_a_damaged_line_in_the_middle_is_refused_by_number(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    append_score(path, CELL)
    path.write_bytes(b'{"schema_version": 1, "task"\n' + path.read_bytes())
    with pytest.raises(ValueError, match=r"scores\.jsonl, line 1"):
        read_scores(path)


def test_a_finished_cell_is_never_appended_again(tmp_path: Path) -> None:
    append_score(tmp_path / "scores.jsonl", CELL)
    with pytest.raises(ValueError, match="already"):
        append_score(tmp_path / "scores.jsonl", replace(CELL, score=0.9))
    path = tmp_path / "twice.jsonl"
    path.write_bytes((tmp_path / "scores.jsonl").read_bytes() * 2)
    with pytest.raises(ValueError, match="appears twice"):
        read_scores(path)


def test_concurrent_appends_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    cells = [replace(CELL, fingerprint=f"{number:064d}", finetuning_seed=number) for number in range(24)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda cell: append_score(path, cell), cells))
    assert sorted(cell.finetuning_seed for cell in read_scores(path)) == list(range(24))


def test_the_cells_of_the_plan_count_and_without_a_plan_the_newest_of_a_place() -> None:
    newer = replace(CELL, fingerprint="b" * 64, score=0.7)
    assert reported_cells([CELL, newer], {CELL.fingerprint}) == ([CELL], 1)
    assert reported_cells([CELL, newer], None) == ([newer], 1)


def test_the_fingerprint_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1, "b": [1, 2]}) != fingerprint({"a": 1, "b": [2, 1]})


@pytest.mark.parametrize(
    "change", [{"score": 75.5}, {"score": float("nan")}, {"status": "fine"}, {"kind": "best"}, {"budget_tokens": None}]
)
def test_impossible_cells_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"score|status|kind|budget_tokens"):
        replace(CELL, **change)  # type: ignore[arg-type]


def test_predictions_are_keyed_by_id_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    write_predictions(path, [{"id": "x", "score": 1.0}, {"id": "y", "score": 0.0, "cluster": "c"}])
    assert read_predictions(path)["y"]["cluster"] == "c"
    write_predictions(path, [{"id": "x", "score": 1.0}, {"id": "x", "score": 0.0}])
    with pytest.raises(ValueError, match="each id may occur once"):
        read_predictions(path)
    write_predictions(path, [{"id": "x", "score": 75.0}])
    with pytest.raises(ValueError, match="not percent"):
        read_predictions(path)
    path.write_text("[" * 10_000)
    with pytest.raises(ValueError, match=r"predictions\.json is not readable .*nested too deeply"):
        read_predictions(path)
