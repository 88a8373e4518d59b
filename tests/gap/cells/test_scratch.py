"""Scratch has random weights of its own for every fine-tuning seed, whichever cell or search they are for."""

from pathlib import Path

import pytest
import torch
from tiny_gap import tiny_jobs, write_series, write_tasks

from gap.cells.plan import CellSource, Controls, Search, reference_sources
from gap.cells.running import Workbench, initial_seed, run_cell, run_search
from gap.cells.search.grid import Grid


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    series = write_series(folder / "run", (100,))
    outside = tuple(reference_sources(str(series.parent / "series" / "annealed-100")))
    return tiny_jobs(
        series,
        write_tasks(folder / "tasks")[1:2],
        outside,
        grid=Grid((1e-3, 1e-2), (1.0,)),
        controls=Controls((2.0,), (0.5,), shuffled_labels=True),
    )


class Stopped(Exception):
    """The model is known, so nothing is trained."""


@pytest.fixture
def start(world, monkeypatch):
    """A function that gives the encoder's weights with which a job would begin to train."""
    bench = Workbench(world, torch.device("cpu"))

    def spy(recipe, model, options, *, engine):
        raise Stopped(
            {
                name: value.clone()
                for name, value in model.state_dict().items()
                if "classifier" not in name and "head" not in name and "pooler" not in name
            }
        )

    monkeypatch.setattr("gap.cells.running.finetune", spy)

    def start(job):
        with pytest.raises(Stopped) as stopped:
            run_search(bench, job) if isinstance(job, Search) else run_cell(bench, job, (1e-3, 1.0), Path("nowhere"))
        return torch.cat([value.flatten().float() for value in stopped.value.args[0].values()])

    return start


def same(one, other):
    return torch.equal(one, other)


def test_every_seed_of_scratch_starts_from_weights_of_its_own_and_pretrained_ones_all_from_theirs(world, start):
    kinds = {"raw": 3, "reference_scratch": 3, "annealed": 1, "reference": 1}  # how many different beginnings
    for kind, number in kinds.items():
        cells = [cell for cell in world.plan.cells if cell.setting.source.kind == kind and cell.control is None]
        weights = [start(cell) for cell in sorted(cells, key=lambda cell: cell.finetuning_seed)]
        assert len(weights) == 3
        different = [one for i, one in enumerate(weights) if not any(same(one, other) for other in weights[:i])]
        assert len(different) == number, kind
        spread = weights[0].std()
        assert 0.01 < spread < 1.0


def test_the_controls_and_tries_of_a_seed_share_its_weights(world, start):
    scratch = [cell for cell in world.plan.cells if cell.setting.source.is_scratch and cell.finetuning_seed == 1]
    assert {cell.control for cell in scratch} == {None, "scratch_longer", "fewer_labels", "shuffled_labels"}
    first = start(scratch[0])
    assert all(same(first, start(cell)) for cell in scratch[1:])
    tries = [search for search in world.plan.searches if search.setting.source.is_scratch]
    begun = [start(search) for search in tries]
    assert all(same(begun[0], other) for other in begun[1:])
    assert not same(first, begun[0])  # no scored seed is that of a search


def test_the_weights_depend_on_the_two_seeds_alone():
    seeds = {
        initial_seed(CellSource(path, kind, 0, pretraining), seed)
        for path, kind in (("a", "raw"), ("b", "annealed"))
        for pretraining in (0, 1)
        for seed in (0, 1, 10_000)
    }
    assert len(seeds) == 6
    assert all(0 <= seed < 1 << 56 for seed in seeds)
