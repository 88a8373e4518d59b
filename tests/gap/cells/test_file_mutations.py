"""What a study leaves in its directory, changed at random: a clear refusal that names the file, or a reading."""

from dataclasses import replace

import pytest
from file_mutations import few_and_many, refusals
from simulated_scores import series_rows
from tiny_encoder import tiny_tokenizer

from gap.analysis.tables.costs import Prices
from gap.analysis.tables.packed_predictions import PackedPredictions, pack_predictions
from gap.analysis.tables.run_folder import RunSource, write_study
from gap.cells import store
from gap.cells.job_list import SEARCHES_NAME, CellOptions, JobList, read_jobs, write_jobs
from gap.cells.plan import CellPlan, CellSource, PlannedCell, Search, Setting
from gap.cells.running import SearchResult
from gap.cells.search.choice import append_search, choose, follow, read_searches
from gap.cells.search.grid import Grid
from gap.cells.store import Cell, ScoreFile, append_score, read_predictions, read_scores, write_predictions
from gap.cells.worker import Records
from gap.study.until import UntilFile
from gap.tasks.contamination import not_searched, read_contaminated
from gap.tasks.unigram import COUNTS_NAME, unigram_log_likelihoods
from runtime.files.schemas import read_object
from runtime.files.whole_files import write_json
from shards.tokenization.vocabulary import fingerprint

CELL = Cell(
    *("a" * 64, "qa", "annealed", 1000, 0, 0, "exact_match", 0.5),
    metrics={"loss": 1.5, "f1": 0.4},
    seconds=3.5,
    predictions="predictions/qa/aaaa.json",
    details={"learning_rate": 1e-4, "epochs": 3.0, "training_examples": 1600, "device": "CPU", "peeked_score": 0.6},
)
SETTING = Setting(CellSource("run/series/annealed-1000", "annealed", 1000), "qa")
SEARCH = Search(SETTING, 1e-4, 3.0)
JOBS = JobList(
    CellPlan(
        (SEARCH, Search(SETTING, 1e-3, 3.0, 10_001)),
        (PlannedCell(SETTING, 0), PlannedCell(SETTING, 1, "same_arguments", 10_001, SETTING.source)),
        Grid((1e-4, 1e-3), (3.0,), 2),
        Grid((1e-5, 1e-4), (3.0,), 1),
    ),
    CellOptions(),
    {"qa": "squad:train.json"},
    {"qa": "d" * 64},
    {"run/series/annealed-1000": "e" * 64},
    "c" * 64,
)


@few_and_many
def test_the_scores(tmp_path, rounds):
    path = tmp_path / "scores.jsonl"
    for number in range(3):
        append_score(path, replace(CELL, fingerprint=str(number) * 64, finetuning_seed=number))

    def read():
        for cell in read_scores(path):
            assert f"{cell.budget_tokens or 0:,} {cell.score:.3f} {sum(cell.metrics.values()):.2f} {cell.seconds:.1f}"
            assert hash(cell.place)

    refusals(path, read, rounds)


@few_and_many
def test_the_searches(tmp_path, rounds):
    for _ in range(3):
        append_search(tmp_path / SEARCHES_NAME, JOBS, SEARCH, SearchResult(0.5, 0.4, "done", 2.0))

    def read():
        records = read_searches(tmp_path / SEARCHES_NAME)
        choose([SEARCH] * len(records), list(records.values()), (1e-4, 3.0))
        follow(JOBS, SETTING, SEARCH.seed, records)
        assert sum(record["seconds"] for record in records.values()) >= 0

    refusals(tmp_path / SEARCHES_NAME, read, rounds)


@few_and_many
def test_the_list_of_cells(tmp_path, rounds):
    write_jobs(tmp_path, JOBS)
    refusals(tmp_path / "cells.json", lambda: read_jobs(tmp_path).cell_names(), rounds)


@few_and_many
def test_the_study(tmp_path, rounds):
    append_score(tmp_path / "scores.jsonl", CELL)
    rows, made = series_rows(), {"code": "c" * 16}
    write_study(tmp_path, rows, planned=["a" * 64], commands=["gap"], notes=["n"], prices=Prices(2.0), made=made)
    refusals(tmp_path / "study.json", lambda: RunSource.of(tmp_path), rounds)


@few_and_many
def test_the_predictions(tmp_path, rounds):
    path = tmp_path / "predictions.json"
    write_predictions(path, [{"id": str(one), "score": 0.5, "cluster": "c", "label": 1} for one in range(3)])
    refusals(path, lambda: {record.get("label") for record in read_predictions(path).values()}, rounds)


@few_and_many
def test_the_packed_predictions(tmp_path, rounds):
    cells = [replace(CELL, fingerprint=name * 64, predictions=f"{name}.json") for name in "ab"]
    for cell in cells:
        write_predictions(tmp_path / str(cell.predictions), [{"id": str(one), "score": 0.5} for one in range(3)])
    path = tmp_path / "packed" / "predictions.json"
    path.parent.mkdir()
    pack_predictions(cells, tmp_path, path)

    def read():
        packed = PackedPredictions(path.parent)
        for cell in filter(packed.has, cells):
            assert all(0 <= record["score"] <= 1 for record in packed.records(cell).values())

    refusals(path, read, rounds)


@few_and_many
def test_what_was_found_in_the_corpus(tmp_path, rounds):
    content = {"schema_version": 1, "data": "d" * 64, "corpus": ["a" * 64], "ids": ["x", "y"]}
    path = tmp_path / "contamination" / "qa.json"
    path.parent.mkdir()
    write_json(path, content)
    refusals(path, lambda: (read_contaminated(tmp_path, "qa"), not_searched(tmp_path, "qa")), rounds)


@few_and_many
def test_the_counts_of_the_floor(tmp_path, rounds):
    tokenizer = tiny_tokenizer(["a", "b"])
    counts = {"corpus": "c", "tokenizer": fingerprint(tokenizer), "counts": list(range(len(tokenizer)))}
    write_json(tmp_path / COUNTS_NAME, {"schema_version": 1, **counts})
    refusals(tmp_path / COUNTS_NAME, lambda: unigram_log_likelihoods(tmp_path, "c", tokenizer, ["a b", "b"]), rounds)


@few_and_many
def test_the_looks_of_a_run_that_stops_early(tmp_path, rounds):
    look = {"look": 1, "budget_tokens": 1000, "confidence": 0.95, "gap_closed": {"qa": [0.5, 0.4, 0.6]}}
    content = {"schema_version": 1, "condition": "gap_closed>=0.9", "asked": {}, "looks": [look], "stopped": None}
    write_json(tmp_path / "until.json", content)

    def read():
        found = read_object(tmp_path / "until.json", UntilFile, "remove it")
        assert all(one["look"] >= 0 for one in found["looks"])

    refusals(tmp_path / "until.json", read, rounds)


def test_a_score_is_parsed_once_however_often_it_is_asked_for(tmp_path, monkeypatch):
    made, append = [], ScoreFile(tmp_path / "scores.jsonl").append
    monkeypatch.setattr(store, "_cell_of", lambda record, make=store._cell_of: made.append(record) or make(record))
    records = Records(tmp_path)
    for number in range(5):
        append(replace(CELL, fingerprint=f"{number:064d}"))
        made.clear()
        assert len(records.finished()) == number + 1
        assert len(made) == 1
    made.clear()
    assert len(records.finished()) == 5
    assert made == []


@pytest.mark.parametrize("change", ["a line less", "another line", "another file"])
def test_scores_that_were_edited_meanwhile_are_read_anew(tmp_path, change):
    path = tmp_path / "scores.jsonl"
    records = Records(tmp_path)
    for name in "abc":
        append_score(path, replace(CELL, fingerprint=name * 64))
    assert len(records.finished()) == 3
    lines = path.read_text().splitlines(keepends=True)
    if change == "another line":
        lines[2] = lines[2].replace("c" * 64, "d" * 64)
    elif change == "a line less":
        del lines[1]
    else:
        path.unlink()
    path.write_text("".join(lines))
    assert records.finished() == {cell.fingerprint for cell in read_scores(path)}


@pytest.mark.parametrize("name", ["scores.jsonl", "study.json", "cells.json", "predictions.json"])
def test_a_key_that_stands_there_twice_is_refused(tmp_path, name):
    append_score(tmp_path / "scores.jsonl", CELL)
    write_jobs(tmp_path, JOBS)
    write_study(tmp_path, series_rows(), planned=["a" * 64], commands=[], notes=[], prices=Prices())
    write_predictions(tmp_path / "predictions.json", [{"id": "x", "score": 0.5}])
    path = tmp_path / name
    path.write_text(f'{{"schema_version": 1, {path.read_text().strip()[1:]}\n')
    readers = {
        "scores.jsonl": lambda: read_scores(path),
        "study.json": lambda: RunSource.of(tmp_path),
        "cells.json": lambda: read_jobs(tmp_path),
        "predictions.json": lambda: read_predictions(path),
    }
    with pytest.raises(ValueError, match=rf"{name}.*key schema_version appears twice"):
        readers[name]()
