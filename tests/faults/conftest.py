"""What tests of faults share: the process that commands are forked from, tiny shards, and an uninterrupted run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pretraining_runs import ROOT, write_shards
from tiny_encoder import save_tiny_model
from tiny_examples import WORDS, tiny_questions

from tests.faults.commands import INTERRUPTED, start_server
from tests.finetuning.run.test_command import squad_file

FULL = {"series": 2, "save_steps": 4}


@pytest.fixture(scope="session")
def commands():
    server = start_server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def full():
    """Options of the runs that are compared with `whole`."""
    return FULL


@pytest.fixture(scope="session")
def zero2():
    return {**FULL, "deepspeed": ROOT / "ds_configs" / "zero2.json"}


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """One shard of training blocks; a test that damages it copies it."""
    return write_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def whole(commands, shards, tmp_path_factory) -> Path:
    """The uninterrupted run."""
    output = tmp_path_factory.mktemp("whole") / "run"
    commands.pretrain(shards, output, FULL)
    return output


@pytest.fixture(scope="session")
def stopped(commands, shards, tmp_path_factory) -> Path:
    """The same run, stopped before its fourteenth update; tests copy it."""
    output = tmp_path_factory.mktemp("stopped") / "run"
    commands.pretrain(shards, output, FULL, INTERRUPTED, FAULT_POINT="update.before:14:terminate")
    return output


@pytest.fixture
def run(stopped, tmp_path) -> Path:
    """A copy of the interrupted run for one test."""
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def copied(shards, tmp_path) -> Path:
    """A copy of the shards for one test."""
    shutil.copytree(shards.parent, tmp_path / "copied")
    return tmp_path / "copied" / shards.name


@pytest.fixture(scope="session")
def questions(tmp_path_factory) -> Path:
    """A folder with a model, train.json and validation.json for `finetuning/qa.py`."""
    folder = tmp_path_factory.mktemp("questions")
    save_tiny_model(folder / "model", "modernbert", WORDS)
    squad_file(folder / "train.json", tiny_questions(40, prefix="t", seed=1))
    squad_file(folder / "validation.json", tiny_questions(19, prefix="v", seed=2))
    return folder
