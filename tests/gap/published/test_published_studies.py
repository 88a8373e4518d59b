"""Published studies: small, analysed like the run itself, and the page that is made from them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulated_scores import SimulatedStudy, series_rows, write_study
from tiny_gap import tiny_jobs, write_series, write_tasks

from gap.analysis.analysis import analysis_json
from gap.analysis.tables.costs import Prices
from gap.analysis.tables.packed_predictions import PACKED_NAME
from gap.analysis.tables.run_folder import RunSource
from gap.analysis.tables.run_folder import write_study as write_study_file
from gap.cells.job_list import write_jobs
from gap.cells.running import SearchResult
from gap.cells.search.choice import append_search
from gap.cells.search.grid import Grid
from gap.cells.store import read_predictions, read_scores, write_predictions
from gap.published.markdown_text import command_lines, table_text
from gap.published.results_page import results_page
from gap.published.study_folder import cost_of, publish
from gap.report.reports import analysis_of
from gap.report.tables import Table
from gap.report_options import ReportOptions
from launch.report import main
from pretraining.checkpoints.series import read_series

DRAWS = 200
SEARCHED = Grid((1e-3, 1e-2), (1.0,))
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its records, and cells of an older plan that do not belong to it."""
    folder = tmp_path_factory.mktemp("run")
    scores = write_study(folder, raw=False)
    planned = [cell.fingerprint for cell in read_scores(scores)]
    SimulatedStudy(folder, seed=9).add("qa", "annealed", 77, 0.5)
    write_study_file(
        folder,
        series_rows(),
        planned=planned,
        commands=["python launch/gap.py --series s.json --tasks qa:FILE"],
        notes=["A note."],
        prices=Prices(),
        made={"cells trained on": "a machine"},
    )
    return folder


@pytest.fixture(scope="module")
def published(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("studies") / "names"
    target.mkdir()
    (target / "plan.md").write_text("# Does it help?\n\nSo we ask.\n")
    publish([str(run_folder)], ReportOptions(draws=DRAWS, publish=str(target)))
    return target


def test_a_published_study_is_analysed_like_its_run(run_folder: Path, published: Path) -> None:
    options = ReportOptions(draws=DRAWS)
    analyses = [analysis_of(RunSource.of(folder), options) for folder in (run_folder, published)]
    own, again = (
        analysis_json(replace(one, name="", notes=tuple(note for note in one.notes if "left out" not in note)))
        for one in analyses
    )
    assert own == again  # scores are 0 or 1 here, which three digits keep exactly


def test_it_holds_the_planned_cells_and_is_small(run_folder: Path, published: Path) -> None:
    kept = {cell.fingerprint for cell in read_scores(published / "scores.jsonl")}
    assert kept == RunSource.of(run_folder).planned
    assert len(read_scores(run_folder / "scores.jsonl")) == len(kept) + 3
    paths = [row["path"] for row in json.loads((published / "study.json").read_text())["checkpoints"]]
    assert paths[0].endswith("annealed-125000")
    assert all(len(Path(path).parts) <= 2 for path in paths)
    size = sum(file.stat().st_size for file in run_folder.rglob("predictions/*.json"))
    assert (published / PACKED_NAME).stat().st_size < size / 10


def test_records_of_the_data_stay_out_and_numbers_keep_three_digits(tmp_path: Path) -> None:
    study = SimulatedStudy(tmp_path / "run", num_examples=8, num_clusters=4)
    study.add("qa", "raw", 0, 0.4, confidence=0.61234)
    study.add("qa", "annealed", 1000, 0.6, confidence=0.71239)
    for cell in read_scores(study.scores):
        path = tmp_path / "run" / str(cell.predictions)
        records = [{**record, "prediction": "a text", "label": "another"} for record in read_predictions(path).values()]
        write_predictions(path, records)
    publish([str(tmp_path / "run")], ReportOptions(draws=DRAWS, publish=str(tmp_path / "kept")))
    text = (tmp_path / "kept" / PACKED_NAME).read_text()
    assert "a text" not in text
    assert "another" not in text
    assert "0.612" in text
    assert "0.6123" not in text
    task = json.loads(text)["tasks"]["qa"]
    assert len(task["cells"]) == 6
    assert len(task["examples"]["id"]) == 8
    assert task["examples"]["cluster"][0].startswith("paragraph-")


def test_labels_and_predictions_stay_where_the_metric_is_computed_from_them(tmp_path: Path) -> None:
    study = SimulatedStudy(tmp_path / "run", num_examples=40, num_clusters=40)
    study.add("cola", "raw", 0, 0.4)
    study.add("cola", "annealed", 1000, 0.7)
    lines = [json.loads(line) for line in study.scores.read_text().splitlines()]
    study.scores.write_text("".join(json.dumps({**line, "metric": "matthews"}) + "\n" for line in lines))
    for line in lines:
        path = tmp_path / "run" / line["predictions"]
        records = [
            {**record, "label": number % 2, "prediction": number % 2 if record["score"] else 1 - number % 2}
            for number, record in enumerate(read_predictions(path).values())
        ]
        write_predictions(path, records)
    publish([str(tmp_path / "run")], ReportOptions(draws=DRAWS, publish=str(tmp_path / "kept")))
    scores = [
        [
            each.score
            for each in analysis_of(RunSource.of(tmp_path / name), ReportOptions(draws=DRAWS)).tasks[0].checkpoints
        ]
        for name in ("run", "kept")
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda task: task["examples"]["id"].pop(), "columns of [399, 400] values"),
        (lambda task: task["examples"]["id"].__setitem__(0, task["examples"]["id"][1]), "each id may occur once"),
        (lambda task: next(iter(task["cells"].values()))["score"].__setitem__(0, 55), "write shares"),
        (lambda task: next(iter(task["cells"].values())).pop("score"), "lacks score"),
        (lambda task: task.pop("examples"), "lacks examples"),
    ],
)
def test_damaged_records_are_refused_by_name(
    published: Path, tmp_path: Path, damage: Callable[[Any], Any], said: str
) -> None:
    content = json.loads((published / PACKED_NAME).read_text())
    damage(content["tasks"]["qa"])
    for name in ("scores.jsonl", "study.json"):
        (tmp_path / name).write_bytes((published / name).read_bytes())
    (tmp_path / PACKED_NAME).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        analysis_of(RunSource.of(tmp_path), ReportOptions(draws=DRAWS))
    assert PACKED_NAME in str(error.value)


def test_results_begin_with_question_and_answer(run_folder: Path, published: Path) -> None:
    text = (published / "results.md").read_text()
    answers = [task.answer for task in analysis_of(RunSource.of(run_folder), ReportOptions(draws=DRAWS)).tasks]
    lines = text.splitlines()
    assert lines[0] == "# Does it help?"
    assert all(answer in text.replace("\n", " ").replace("\\_", "_") for answer in answers)
    assert "python launch/gap.py --series s.json" in text
    assert "A note." in text
    assert "All 60 cells" not in text
    assert "| cell |" not in text
    for file in ("qa-gap.png", "qa-score.png"):
        assert f"]({file})" in text
        assert (published / file).stat().st_size > 10_000


def test_the_page_has_a_row_and_a_section_for_each_study(published: Path) -> None:
    page = results_page(published.parent, pictures="studies")
    assert page.startswith("# Results")
    assert "Planned" not in page
    (published.parent / "later").mkdir()
    (published.parent / "later" / "plan.md").write_text("# What next?\n")
    later = results_page(published.parent, pictures="studies")
    assert "Planned, not run yet: [What next?](studies/later/plan.md)" in later
    assert "| [Does it help?](#does-it-help) |" in page
    assert "\n## Does it help?\n" in page
    assert "](studies/names/qa-gap.png)" in page
    assert "(studies/names/plan.md)" in page
    cells = read_scores(published / "scores.jsonl")
    cost = cost_of(RunSource.of(published))
    assert cost.cells == sum(cell.seconds for cell in cells)
    assert cost.pretraining == 8_000_000 / 20_000
    assert cost.searches == 0.0


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    scores = write_study(tmp_path / "run", raw=False)
    whole = scores.read_text()
    publish([str(tmp_path / "run")], ReportOptions(draws=DRAWS, publish=str(tmp_path / "whole")))
    scores.write_text(whole + whole.splitlines()[0][:40])
    publish([str(tmp_path / "run")], ReportOptions(draws=DRAWS, publish=str(tmp_path / "torn")))
    assert (
        (tmp_path / "torn" / "scores.jsonl").read_text() == (tmp_path / "whole" / "scores.jsonl").read_text() == whole
    )


def test_only_the_searches_of_the_plan_are_published_and_count_as_its_cost(tmp_path: Path) -> None:
    jobs = tiny_jobs(write_series(tmp_path / "series"), write_tasks(tmp_path / "tasks")[1:2], grid=SEARCHED)
    older = replace(jobs, code="older")
    run = tmp_path / "run"
    write_jobs(run, jobs)
    for owner in (older, jobs):
        for search in jobs.plan.searches:
            append_search(run / "searches.jsonl", owner, search, SearchResult(0.5, 0.5, "done", 10.0))
    study = SimulatedStudy(run, num_examples=8, num_clusters=4)
    for kind, budget, chance in (("raw", 0, 0.3), ("annealed", 100, 0.6)):
        study.add("texts", kind, budget, chance)
    cells, names = read_scores(study.scores), sorted(jobs.cell_names())
    lines = [json.loads(line) for line in study.scores.read_text().splitlines()]
    renamed = [{**line, "fingerprint": name} for line, name in zip(lines, names, strict=False)]
    study.scores.write_text("".join(json.dumps(line) + "\n" for line in renamed))
    rows = read_series(tmp_path / "series" / "series.json")
    planned = names[: len(cells)]
    write_study_file(run, rows, planned=planned, commands=[], notes=[], prices=Prices())
    publish([str(run)], ReportOptions(draws=DRAWS, publish=str(tmp_path / "kept")))
    cost = cost_of(RunSource.of(tmp_path / "kept"))
    assert cost.searches == 10.0 * len(jobs.plan.searches)
    assert cost.pretraining == 100 / 10  # the series goes on to 200, of which no cell is there
    (run / "cells.json").unlink()  # which of them are the plan's is not known any more
    publish([str(run)], ReportOptions(draws=DRAWS, publish=str(tmp_path / "all")))
    assert cost_of(RunSource.of(tmp_path / "all")).searches == 2 * cost.searches


def test_publishing_is_refused_for_several_runs_and_in_place(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run_folder), "--publish", str(run_folder), "--draws", "100"]) != 0
    assert "is the run's own folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="publish one at a time"):
        publish([str(run_folder), str(run_folder)], ReportOptions(publish="elsewhere"))


def test_the_page_is_written_from_the_command_line(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = published.parents[1] / "page" / "results.md"
    page.parent.mkdir()
    assert main([str(published.parent), "--results_page", str(page)]) == 0
    assert f"(../{published.parent.name}/names/plan.md)" in page.read_text()
    assert main([str(published), str(published), "--results_page", str(page)]) != 0
    assert "2 folders; name the one that holds the studies" in capsys.readouterr().err


def test_a_folder_without_studies_says_so_and_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert results_page(tmp_path, pictures="studies") == "# Results\n\nNo study has been published yet.\n"
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'none'} is no folder")):
        results_page(tmp_path / "none", pictures="studies")


def test_cells_of_a_table_and_long_commands_stay_whole() -> None:
    assert table_text(Table(("a",), [("x | y\nz",)])).splitlines()[-1] == "| x \\| y z |"
    lines = command_lines("python launch/gap.py " + " ".join(f"--option_{number} value" for number in range(12)))
    assert len(lines) > 1
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert not lines[-1].endswith("\\")
    assert " ".join(line.rstrip("\\").strip() for line in lines).count("--option_") == 12


def test_the_projects_page_is_what_its_studies_give() -> None:
    """docs/results.md, every sentence, table and figure of it, from the records in docs/studies."""
    assert (DOCS / "results.md").read_text() == results_page(DOCS / "studies", pictures="studies")
