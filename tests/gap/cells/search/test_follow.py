"""Searches by workers: tried beyond the edge within the bound, once each, also after a kill; and what is said of it."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny_gap import tiny_experiment, tiny_jobs, write_series, write_tasks

from gap.cells import worker
from gap.cells.job_list import SEARCHES_NAME, write_jobs
from gap.cells.plan import SELF_PRETRAINED, CellSource, Controls, reference_sources
from gap.cells.running import SearchResult
from gap.cells.search.choice import follow, read_searches
from gap.cells.search.grid import Grid
from gap.cells.search.notes import edge_notes, same_arguments_notes
from gap.cells.store import Cell
from gap.cells.worker import Records, remaining, work
from gap.study.outlook import busy_seconds, grid_lines, outlook

GRID = Grid((1e-4, 3e-4, 9e-4), (2.0, 4.0), 2)
BEST = {"raw": (8.1e-3, 2.0), "annealed": (3e-4, 2.0)}  # scratch beyond the grid, pretrained inside it


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_series(folder / "run", (100,)), write_tasks(folder / "tasks")


class Killed(BaseException):
    """As abrupt as a SIGKILL: no handler of the worker sees it."""


class Pretended:
    """Trains nothing: a try is the better the nearer it is to `best`; counts what is run, dies where it is told to."""

    def __init__(self, monkeypatch, best=BEST, dies_after=None):
        self.tries, self.cells, self.best, self.dies_after = [], [], best, dies_after
        monkeypatch.setattr(worker, "run_search", self.search)
        monkeypatch.setattr(worker, "run_cell", self.cell)

    def search(self, bench, search):
        if len(self.tries) == self.dies_after:
            raise Killed
        self.tries.append(search)
        rate, epochs = self.best[search.setting.source.control or search.setting.source.kind]
        far = abs(torch.tensor(search.learning_rate / rate).log().item()) + abs(search.epochs - epochs)
        return SearchResult(1 / (1 + far), 0.5, "done", 1.0, far)

    def cell(self, bench, cell, chosen, directory, **more):
        self.cells.append((cell, chosen))
        source = cell.setting.source
        return Cell(
            bench.jobs.fingerprint(cell), cell.setting.task, source.kind, source.budget_tokens,
            source.pretraining_seed, cell.finetuning_seed, "accuracy", 0.5, control=cell.control, seconds=1.0,
        )  # fmt: skip


def silent(*words):
    pass


def test_a_choice_at_the_edge_is_followed_and_no_try_is_run_twice(world, tmp_path, monkeypatch):
    jobs = tiny_jobs(world[0], world[1][1:2], grid=GRID)
    write_jobs(tmp_path, jobs)
    ran = Pretended(monkeypatch)
    assert work(tmp_path, say=silent) == 6 + 8 + 6
    by_kind = Counter(search.setting.source.kind for search in ran.tries)
    assert by_kind == {"raw": 6 + 2, "annealed": 6}
    assert set(Counter(ran.tries).values()) == {1}
    assert {(cell.setting.source.kind, chosen) for cell, chosen in ran.cells} == set(BEST.items())
    assert not remaining(jobs, tmp_path)
    assert busy_seconds(tmp_path, jobs) == 20.0  # the tries beyond the edge too
    (note,) = edge_notes(jobs, read_searches(tmp_path / SEARCHES_NAME))
    assert "chose the highest learning rate that it tried for texts, scratch, run 0 (0.0081)." in note
    assert "raise --grid_extensions" in note


def test_epochs_are_followed_upwards(world, tmp_path, monkeypatch):
    jobs = tiny_jobs(world[0], world[1][1:2], grid=GRID)
    write_jobs(tmp_path, jobs)
    ran = Pretended(monkeypatch, {"raw": (3e-4, 40.0), "annealed": (3e-4, 0.1)})
    work(tmp_path, say=silent)
    assert {(cell.setting.source.kind, chosen) for cell, chosen in ran.cells} == {
        ("raw", (3e-4, 16.0)), ("annealed", (3e-4, 2.0)),
    }  # fmt: skip
    (note,) = edge_notes(jobs, read_searches(tmp_path / SEARCHES_NAME))
    assert "the largest number of epochs that it tried for texts, scratch, run 0 (16 epochs)." in note


@pytest.mark.parametrize("after", range(0, 14, 3))
def test_a_search_that_was_killed_anywhere_goes_on_to_the_same_choice(world, tmp_path, monkeypatch, after):
    jobs = tiny_jobs(world[0], world[1][1:2], grid=GRID)
    write_jobs(tmp_path, jobs)
    first = Pretended(monkeypatch, dies_after=after)
    with pytest.raises(Killed):
        work(tmp_path, say=silent)
    path = tmp_path / SEARCHES_NAME
    whole = path.read_bytes() if path.is_file() else b""
    path.write_bytes(whole + b'{"schema_version": 1, "finger')  # and a line was torn
    second = Pretended(monkeypatch)
    work(tmp_path, say=silent)
    assert len(first.tries) == after
    assert set(Counter([*first.tries, *second.tries]).values()) == {1}
    assert len(first.tries) + len(second.tries) == 14
    assert {chosen for cell, chosen in second.cells if cell.setting.source.is_scratch} == {BEST["raw"]}


def test_the_tries_of_a_wider_bound_have_no_part_in_a_narrower_one(world, tmp_path, monkeypatch):
    wide, narrow = (tiny_jobs(world[0], world[1][1:2], grid=replace(GRID, extensions=bound)) for bound in (2, 1))
    Pretended(monkeypatch)
    for jobs in (wide, narrow):
        write_jobs(tmp_path, jobs)
        work(tmp_path, say=silent)
    records = read_searches(tmp_path / SEARCHES_NAME)
    assert len(records) == 14  # none was run again
    scratch = next(setting for setting in narrow.plan.settings if setting.source.is_scratch)
    choices = [follow(jobs, scratch, 10_000, records).choice for jobs in (wide, narrow)]
    assert [choice.learning_rate for choice in choices] == [8.1e-3, 2.7e-3]
    assert not {wide.fingerprint(cell) for cell in wide.plan.cells} & narrow.cell_names()


def test_the_plan_prints_the_grids_and_counts_what_may_follow(world, tmp_path, monkeypatch):
    jobs = tiny_jobs(world[0], world[1][1:2], grid=GRID)
    data = {"texts": tiny_experiment(world[1][1:2]).read()["texts"]}
    (line,) = grid_lines(jobs)
    assert line == (
        "grid: learning rates 0.0001, 0.0003, 0.0009, epochs 2, 4: 6 tries for every checkpoint, and at most 4 more "
        "where the choice is at an edge, up to 16 epochs"
    )
    found = outlook(jobs, data, tmp_path, devices=1)
    assert (found.searches, found.most_searches) == (12, 12 + 2 * 4)
    assert "; at most 8 searches more, where a choice is at the edge of its grid: then about " in found.line()
    assert found.most_seconds > 2 * found.device_seconds > 0
    write_jobs(tmp_path, jobs)
    Pretended(monkeypatch, dies_after=13)  # both grids, and one of scratch's two tries beyond it
    with pytest.raises(Killed):
        work(tmp_path, say=silent)
    later = outlook(jobs, data, tmp_path, devices=1)
    assert (later.searches, later.most_searches) == (1, 1 + 2)  # epochs may follow the rates
    work_without = tiny_jobs(world[0], world[1][1:2], grid=replace(GRID, extensions=0))
    assert "at most" not in outlook(work_without, data, tmp_path, devices=1).line()


def test_a_split_of_its_own_for_each_seed_has_a_search_of_its_own(world, tmp_path, monkeypatch):
    own, shared = (
        tiny_jobs(world[0], world[1][1:2], grid=replace(GRID, extensions=0), resample_split=each)
        for each in (True, False)
    )
    assert (len(own.plan.searches), len(shared.plan.searches)) == (3 * 12, 12)
    assert not own.cell_names() & shared.cell_names()
    names = {own.fingerprint(search) for search in own.plan.searches}
    assert len(names) == 36
    assert not names & {shared.fingerprint(search) for search in shared.plan.searches}
    assert "--resample_split: 3 searches of each setting" in " ".join(grid_lines(own))
    write_jobs(tmp_path, own)
    ran = Pretended(monkeypatch)
    work(tmp_path, say=silent)
    assert Counter(search.split for search in ran.tries) == {1: 12, 2: 12, 3: 12}
    assert len(ran.cells) == 6
    with_ends = tiny_jobs(world[0], world[1][1:2], grid=GRID, resample_split=True)
    assert {cell.search_seed for cell in with_ends.plan.cells} == {10_001, 10_002, 10_003}


def test_scratch_with_the_references_arguments_waits_for_the_references_search(world, tmp_path, monkeypatch):
    jobs = tiny_jobs(world[0], world[1][1:2], grid=GRID, controls=Controls(same_arguments=True))
    write_jobs(tmp_path, jobs)
    ran = Pretended(monkeypatch)
    work(tmp_path, say=silent)
    chosen = {(cell.setting.source.kind, cell.control): chosen for cell, chosen in ran.cells}
    assert chosen == {
        ("raw", None): BEST["raw"], ("annealed", None): BEST["annealed"], ("raw", "same_arguments"): BEST["annealed"],
    }  # fmt: skip
    assert len(ran.cells) == 9
    assert not remaining(jobs, tmp_path)
    notes = same_arguments_notes(jobs, read_searches(tmp_path / SEARCHES_NAME))
    assert "rate 0.0003, 2 epochs, the reference's choice" in notes[0]  # scratch has tried them, and more


def test_a_control_is_not_taken_for_the_reference(world, tmp_path, monkeypatch):
    place = str(world[0].parent / "series" / "annealed-100")
    own = CellSource(place, "annealed", 200, 7, control=SELF_PRETRAINED, task=world[1][1].name)
    jobs = tiny_jobs(world[0], world[1][1:2], (own,), grid=GRID)
    write_jobs(tmp_path, jobs)
    Pretended(monkeypatch, {**BEST, SELF_PRETRAINED: (9e-4, 4.0)})
    work(tmp_path, say=silent)
    (note,) = same_arguments_notes(jobs, read_searches(tmp_path / SEARCHES_NAME))
    assert "rate 0.0003, 2 epochs, the reference's choice" in note


def test_what_needs_a_search_is_refused_where_nothing_is_searched(world):
    one = {"grid": Grid((1e-3,), (1.0,))}
    with pytest.raises(ValueError, match="--same_arguments: one learning rate and one number of epochs for all"):
        tiny_jobs(world[0], world[1][1:2], **one, controls=Controls(same_arguments=True))
    with pytest.raises(ValueError, match=r"--resample_split: .*nothing is searched: give several --learning_rates"):
        tiny_jobs(world[0], world[1][1:2], **one, resample_split=True)
    outside = tuple(reference_sources(str(world[0].parent / "series" / "annealed-100")))
    jobs = tiny_jobs(
        *(world[0], world[1][1:2], outside), **one, controls=Controls(same_arguments=True), reference_rates=(1e-5,)
    )
    assert "same_arguments" in {cell.control for cell in jobs.plan.cells}  # the reference's only rate is another
    mixed = tiny_jobs(*(world[0], world[1][1:2], outside), **one, reference_rates=(1e-5, 1e-4), resample_split=True)
    seeds = {(cell.setting.source.is_outside, cell.search_seed) for cell in mixed.plan.cells}
    assert seeds == {(False, 10_000), (True, 10_001), (True, 10_002), (True, 10_003)}


def test_the_reference_and_its_shape_from_scratch_have_a_grid_of_their_own(world, tmp_path):
    series, tasks = world
    outside = tuple(reference_sources(str(series.parent / "series" / "annealed-100")))
    jobs = tiny_jobs(series, tasks[1:2], outside, grid=GRID, reference_rates=(1e-5,))
    rates = {}
    for search in jobs.plan.searches:
        rates.setdefault(search.setting.source.kind, set()).add(search.learning_rate)
    assert rates == {
        "raw": {1e-4, 3e-4, 9e-4}, "annealed": {1e-4, 3e-4, 9e-4}, "reference": {1e-5}, "reference_scratch": {1e-5},
    }  # fmt: skip
    plain = tiny_jobs(series, tasks[1:2], outside, grid=GRID)
    same = {
        cell.setting.source.kind
        for cell, other in zip(jobs.plan.cells, plain.plan.cells, strict=True)
        if jobs.fingerprint(cell) == plain.fingerprint(other)
    }
    assert same == {"raw", "annealed"}
    lines = grid_lines(jobs)
    assert lines[0].startswith("grid of the series: learning rates 0.0001,")
    assert lines[1].startswith("grid of the reference and of its architecture from scratch: learning rate 1e-05,")
    write_jobs(tmp_path, jobs)
    assert worker.read_jobs(tmp_path) == jobs
    with pytest.raises(ValueError, match="--reference_learning_rates without --reference"):
        tiny_jobs(series, tasks[1:2], grid=GRID, reference_rates=(1e-5,))


def test_records_of_a_lost_claim_are_not_needed_twice(world, tmp_path, monkeypatch):
    """Two workers see the same next try; whoever comes second finds its record and leaves it."""
    jobs = tiny_jobs(world[0], world[1][1:2], grid=GRID)
    write_jobs(tmp_path, jobs)
    Pretended(monkeypatch, dies_after=12)
    with pytest.raises(Killed):
        work(tmp_path, say=silent)
    ways = [
        [job for job in remaining(jobs, tmp_path, Records(tmp_path)) if not hasattr(job, "control")] for _ in range(2)
    ]
    assert ways[0] == ways[1]
    assert [(search.learning_rate, search.epochs) for search in ways[0]] == [(2.7e-3, 2.0)]
