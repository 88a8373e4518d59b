"""The gate before a long run judges what the run will do, and only when it begins."""

import json

import pytest
from pretraining_runs import arguments, write_shards
from torch import device

from pretraining.overfit import gate
from pretraining.overfit.gate import check_overfits
from pretraining.plan.options import PretrainingOptions, with_defaults
from pretraining.plan.plan import Plan
from runtime.options.command_line import parse_options
from runtime.processes.ranks import Ranks
from shards.storage.location import open_location


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return open_location(write_shards(tmp_path_factory.mktemp("corpus")))


@pytest.fixture
def tried(monkeypatch):
    """What `overfit_one_batch` is asked for, in place of doing it."""
    calls = []

    class Solved:
        def summary(self):
            return "solved"

        def require_solved(self):
            pass

    def record(model, batch, learning_rate, **options):
        calls.append({"learning_rate": learning_rate, **options})
        return Solved()

    monkeypatch.setattr(gate, "overfit_one_batch", record)
    return calls


def plan_of(shards, output, **options):
    given = parse_options(PretrainingOptions, arguments(shards.directory, output, options))
    return Plan(with_defaults(given), shards.manifest, Ranks(), device("cpu"))


def test_it_tries_the_run_s_own_optimizer_clipping_precision_and_seed(shards, tried, tmp_path):
    options = {"optimizer": "lamb", "weight_decay": 0.1, "adam_beta2": 0.9, "max_grad_norm": 0.5}
    check_overfits(plan_of(shards, tmp_path, **options, learning_rate=0.02, seed=7, bf16="true"), shards)
    (asked,) = tried
    optimizer = asked["optimizer_options"]
    assert (optimizer.name, optimizer.weight_decay, optimizer.betas) == ("lamb", 0.1, (0.9, 0.9))
    assert (asked["learning_rate"], asked["max_grad_norm"], asked["bf16"], asked["seed"]) == (0.02, 0.5, True, 7)


def test_the_optimizer_may_be_named_by_the_deepspeed_json(shards, tried, tmp_path):
    config = tmp_path / "lamb.json"
    config.write_text(json.dumps({"optimizer": {"type": "Lamb"}, "zero_optimization": {"stage": 0}}))
    check_overfits(plan_of(shards, tmp_path, deepspeed=config), shards)
    assert tried[0]["optimizer_options"].name == "lamb"


def test_a_run_that_goes_on_is_not_tried_again(shards, tried, tmp_path):
    check_overfits(plan_of(shards, tmp_path / "new"), shards)
    assert len(tried) == 1
    (tmp_path / "run" / "checkpoints" / "step-00000004-000").mkdir(parents=True)
    check_overfits(plan_of(shards, tmp_path / "run"), shards)
    check_overfits(plan_of(shards, tmp_path / "new", resume_from_checkpoint=tmp_path / "run"), shards)
    assert len(tried) == 1
