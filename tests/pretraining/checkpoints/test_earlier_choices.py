"""A run that is continued keeps what it settled, whatever the machine has."""

from __future__ import annotations

import json

import pytest
import torch
from pretraining_runs import TINY, in_process, journal, write_shards

from pretraining.checkpoints.checkpoint import committed
from pretraining.checkpoints.earlier_choices import earlier_choices
from pretraining.plan.choices import ARCHITECTURE, Choices
from pretraining.plan.options import PretrainingOptions
from runtime.options.exit_status import INTERRUPTED
from runtime.processes.ranks import Ranks

WITHOUT_UNITS, WITH_UNITS = {}, {"amx_bf16": True}
AUTO = {"bf16": "auto", "attn_implementation": "auto", "save_steps": 4}  # a stop waits for no longer than a save


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"))


def start(shards, output, monkeypatch, capabilities, **more):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    in_process(shards, output, AUTO, **more)


def choices(output, **options):
    return earlier_choices(PretrainingOptions(output_dir=str(output), **options), Ranks())


@pytest.mark.parametrize(
    ("begun", "continued", "bf16", "attention"),
    [(WITHOUT_UNITS, WITH_UNITS, False, "sdpa"), (WITH_UNITS, WITHOUT_UNITS, True, "eager")],
)
def test_precision_and_attention_of_a_resumed_run(
    shards, tmp_path, monkeypatch, capsys, begun, continued, bf16, attention
):
    fault = {"fault": "update.before:8:terminate", "status": INTERRUPTED}
    start(shards, tmp_path / "run", monkeypatch, begun, **fault)
    found = choices(tmp_path / "run")
    assert (found.bf16, found.attention, found.dropout) == (bf16, attention, 0.0)
    named = committed(tmp_path / "run" / "checkpoints")[0]
    assert choices(tmp_path / "other", resume_from_checkpoint=str(named)) == found
    capsys.readouterr()
    start(shards, tmp_path / "run", monkeypatch, continued)
    said = capsys.readouterr().out
    assert f"{'bf16' if bf16 else 'fp32'} (as this run began), attention {attention}" in said
    assert len(journal(tmp_path / "run")) == 20
    start(shards, tmp_path / "whole", monkeypatch, begun)
    losses = [[line["loss"] for line in journal(tmp_path / name)] for name in ("run", "whole")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_run_of_an_earlier_version_keeps_the_dropout_of_its_architecture(shards, tmp_path, monkeypatch):
    start(shards, tmp_path / "run", monkeypatch, WITHOUT_UNITS)
    state = committed(tmp_path / "run" / "checkpoints")[0] / "state.json"
    content = json.loads(state.read_text())
    del content["choices"], content["identity"]["dropout"]
    state.write_text(json.dumps(content))
    assert choices(tmp_path / "run") == Choices(bf16=False, dropout=ARCHITECTURE)


def test_a_damaged_checkpoint_hides_nothing(shards, tmp_path, monkeypatch):
    """Resuming passes over it too; run.json has the rest."""
    start(shards, tmp_path / "run", monkeypatch, WITH_UNITS)
    whole = choices(tmp_path / "run")
    assert (whole.bf16, whole.attention) == (True, "eager")
    places = committed(tmp_path / "run" / "checkpoints")
    assert len(places) > 1
    (places[0] / "state.json").write_text("{")
    assert choices(tmp_path / "run") == whole
    for place in places:
        (place / "state.json").write_text("{}")
    assert choices(tmp_path / "run") == Choices(bf16=True, dropout=0.0)


def test_a_new_run_has_settled_nothing(tmp_path):
    assert choices(tmp_path / "run") == Choices()
    assert choices(tmp_path / "run", resume_from_checkpoint=str(tmp_path / "nowhere")) == Choices()
    assert TINY["bf16"] == "false"  # all other tests compute the same on every processor
