"""Runs, builds, sweeps and cells from before the declarations keep their identities, recorded here."""

import hashlib
import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from finetuning.loop.run_state import run_fingerprint
from finetuning.run.option_checks import options_class
from finetuning.sweep.sweep import make_sweep
from gap.cells.job_list import CellOptions
from gap.tasks.rows import RowOptions
from pretraining.plan.identity import differences
from pretraining.plan.options import PretrainingOptions, with_defaults
from shards.building.options import BuildOptions


@dataclass
class Head:
    task: str = "x"


def digest(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def without_precision(options):
    """A pretraining run once did not say its precision."""
    return {name: value for name, value in options.identity().items() if name != "bf16"}


def fine_tuning(recipe, rows=32, **given):
    made = SimpleNamespace(name=recipe, head=Head(), train_features=[], evaluation_sets={})
    return run_fingerprint(made, options_class(recipe)(**given), rows, "w")


def sweep(recipe, **base):
    content = {"recipe": recipe, "base": {"model_name_or_path": "owner/model", **base}, "seeds": [0, 1]}
    cells = make_sweep({**content, "grid": {"learning_rate": [1e-5, 2e-5]}}).cells
    return digest([cell.fingerprint for cell in cells])


PRETRAINING = {
    "budget_flops": 1e15, "seed": 3, "optimizer": "lamb", "length_schedule": "128:0.9,512:0.1", "save_steps": 7,
    "whole_word_masking": True,
}  # fmt: skip
FINE_TUNING = {
    "train_file": "a.json", "learning_rate": 1e-3, "bf16": "false", "on_bad_text": "replace", "seeds": [1, 2],
    "dropout": 0.2, "save_steps": 9, "fsdp": "hybrid_shard", "output_dir": "there",
}  # fmt: skip
BUILD = {"input": ["a"], "output_dir": "b"}
CASES = [
    pytest.param(
        lambda: digest(without_precision(with_defaults(PretrainingOptions()))),
        "80efd4867e9f5adc",
        id="pretraining small world",
    ),
    pytest.param(
        lambda: digest(without_precision(with_defaults(PretrainingOptions(shards="there", **PRETRAINING)))),
        "cb254c5bd99b83ab",
        id="pretraining shards",
    ),
    pytest.param(lambda: fine_tuning("qa"), "39009b9bd68595e3", id="qa default"),
    pytest.param(lambda: fine_tuning("qa", 16, **FINE_TUNING), "98603e367ff11df9", id="qa given"),
    pytest.param(lambda: fine_tuning("multiple_choice"), "6df69f6054ee2c0f", id="multiple_choice default"),
    pytest.param(
        lambda: fine_tuning("multiple_choice", 16, **FINE_TUNING), "f9245544f9968541", id="multiple_choice given"
    ),
    pytest.param(lambda: fine_tuning("glue"), "bc237807ae077a4b", id="glue default"),
    pytest.param(lambda: fine_tuning("glue", 16, **FINE_TUNING), "f714e48bd25a6e89", id="glue given"),
    pytest.param(lambda: fine_tuning("classification"), "4866f38c823d4c80", id="classification default"),
    pytest.param(
        lambda: fine_tuning("classification", 16, **FINE_TUNING), "0636f5dc770d4d29", id="classification given"
    ),
    pytest.param(lambda: digest(BuildOptions(**BUILD, processes=3).deciding()), "6f515b8831bda0d8", id="build"),
    pytest.param(
        lambda: digest(BuildOptions(**BUILD, tokenizer="t", index_memory_mb=9, on_bad_text="replace").deciding()),
        "6be5a02c1067259d",
        id="build tokenizer",
    ),
    pytest.param(lambda: digest(CellOptions(per_device_train_batch_size=4).deciding()), "14fcb4d3d1d8fedb", id="cells"),
    pytest.param(
        lambda: digest(CellOptions(rows=RowOptions(64, 16, "mean", 8), dropout=0.1, bf16="true").deciding()),
        "6c0d00e2ebd078fd",
        id="cells given",
    ),
    pytest.param(lambda: sweep("qa"), "d13f67a7cc8e4228", id="sweep qa"),
    pytest.param(lambda: sweep("multiple_choice"), "768d003ef73d9aea", id="sweep multiple_choice"),
    pytest.param(lambda: sweep("classification", pooling="mean"), "4c9319f592b5c2a0", id="sweep classification"),
]


@pytest.mark.parametrize(("made", "before"), CASES)
def test_an_identity_is_what_it_was(made, before):
    assert made()[:16] == before


def test_a_run_that_did_not_say_its_precision_goes_on_and_one_that_did_keeps_it():
    mine = {"seed": 0, "optimizer": "adamw", "bf16": False}
    assert differences({"seed": 0, "optimizer": "auto"}, mine) == ""
    assert differences({**mine, "bf16": True}, mine) == "bf16: True there, False here"
