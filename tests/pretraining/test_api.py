"""`pretrain` from Python: the command's run, its result, and a process that is as before."""

import json
import logging
import os
import random
import signal
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo.config
import torch.distributed as dist
import transformers
from pretraining_runs import TINY, environment, in_process, launcher, same_series, spawn, stop_session, write_shards

from pretraining import PretrainingOptions, pretrain
from runtime.processes.failures import Refused
from runtime.processes.interruption import Interrupted

OPTIONS = {**TINY, "series": "0", "disable_tqdm": True, "save_minutes": 1000}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ZERO = {"optimizer": {"type": "AdamW", "params": {"torch_adam": True}}, "zero_optimization": {"stage": 2}}
PER_RANK = """
import json, sys
from pathlib import Path
from pretraining import pretrain
shards, out, options = sys.argv[-3], Path(sys.argv[-2]), json.loads(sys.argv[-1])  # deepspeed adds its own first
results = [pretrain(shards=shards, output_dir=out / name, **options) for name in ("first", "second")]
import torch.distributed as dist
assert not dist.is_initialized()
assert [len(result.losses) for result in results] == [17, 17]
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("api"))


def state_of_the_process():
    """What a caller's next line may depend on."""
    return {
        "environment": dict(os.environ),
        "handlers": [signal.getsignal(number) for number in SIGNALS],
        "threads": torch.get_num_threads(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "warnings": list(warnings.filters),
        "levels": [logging.getLogger(name).level for name in ("DeepSpeed", "torch.distributed", "filelock")],
        "transformers": transformers.utils.logging.get_verbosity(),
        "bars": transformers.utils.logging.is_progress_bar_enabled(),
        "group": dist.is_initialized(),
        "compiler": (torch._dynamo.config.suppress_errors, torch._dynamo.config.cache_size_limit),
        "grad": torch.is_grad_enabled(),
        "type": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def test_a_run_gives_its_series_and_losses_and_leaves_the_process_as_it_was(shards, tmp_path, capsys):
    transformers.utils.logging.set_verbosity_warning()
    before = state_of_the_process()
    result = pretrain(shards=shards, output_dir=tmp_path / "run", **OPTIONS)
    assert state_of_the_process() == before
    in_process(shards, tmp_path / "command")
    same_series(tmp_path / "run", tmp_path / "command")
    assert [entry["kind"] for entry in result.checkpoints] == ["raw", "annealed"]
    assert result.model == (tmp_path / "run" / "series" / "annealed-7000").resolve()
    assert result.model.is_dir()
    assert len(result.updates) > len(result.losses) == 17
    assert result.losses[-1] < result.losses[0]
    assert result.series.is_file()
    before = state_of_the_process()
    with pytest.raises(Refused, match="learning_rate") as refused:
        pretrain(shards=shards, output_dir=tmp_path / "run", **{**OPTIONS, "learning_rate": 1e-3})
    assert refused.value.problems
    assert state_of_the_process() == before
    again = pretrain(PretrainingOptions(shards=str(shards), output_dir=str(tmp_path / "run"), **OPTIONS))
    assert again.losses == result.losses
    assert "contradiction: " in capsys.readouterr().err


def test_a_dry_run_has_no_checkpoints(shards, tmp_path, capsys):
    result = pretrain(shards=shards, output_dir=tmp_path / "run", dry_run=True, **OPTIONS)
    assert (result.checkpoints, result.updates, result.losses) == ([], [], [])
    with pytest.raises(ValueError, match="has no annealed checkpoint"):
        _ = result.model
    assert "parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"modle": "bert-tiny"}, TypeError, "has no option 'modle': did you mean model?"),
        ({"mlm_probability": 0.15}, TypeError, "use --mask_rate"),
        ({"until": "gap_closed>=0.9"}, TypeError, "has no option 'until'"),
        ({"budget_tokens": "many"}, TypeError, "budget_tokens='many' is a str: give a number"),
        ({"seed": 1.5}, TypeError, "seed=1.5 is a float: give a whole number"),
        ({"mask_rate": 2.0}, ValueError, "--mask_rate 2.0: use above 0 and below 1"),
        ({"budget_tokens": 1e6, "budget_hours": 1}, ValueError, "exclude each other"),
        ({"shards": "nowhere"}, ValueError, "nowhere"),
    ],
)
def test_what_is_refused_raises_and_does_not_end_the_process(tmp_path, wrong, error, said):
    with pytest.raises(error, match=said.replace("?", r"\?")):
        pretrain(output_dir=tmp_path / "run", **wrong)
    assert not dist.is_initialized()
    assert not (tmp_path / "run" / "series.json").exists()


def test_a_signal_saves_and_raises_and_the_same_call_goes_on(shards, tmp_path):
    before = state_of_the_process()["handlers"]

    def stop(line):
        signal.raise_signal(signal.SIGINT)

    from pretraining.loop.journal import Journal

    append = Journal.append
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "append", lambda self, lines: (append(self, lines), stop(lines))[0])
        with pytest.raises(Interrupted, match="SIGINT"):
            pretrain(shards=shards, output_dir=tmp_path / "run", **OPTIONS)
    assert json.loads((tmp_path / "run" / "INTERRUPTED.json").read_text())["reason"] == "SIGINT"
    assert state_of_the_process()["handlers"] == before
    assert len(pretrain(shards=shards, output_dir=tmp_path / "run", **OPTIONS).losses) == 17
    assert not (tmp_path / "run" / "INTERRUPTED.json").exists()


def test_another_thread_may_call_it(shards, tmp_path):
    found = []
    call = threading.Thread(
        target=lambda: found.append(pretrain(shards=shards, output_dir=tmp_path / "run", **OPTIONS).losses)
    )
    call.start()
    call.join()
    assert len(found[0]) == 17


def test_a_process_group_of_the_caller_is_left_alone(shards, tmp_path):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match=r"call pretrain\(\) before init_process_group"):
            pretrain(shards=shards, output_dir=tmp_path / "run", **OPTIONS)
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torchrun", "deepspeed"])
def test_every_rank_of_a_launcher_calls_it_twice(shards, tmp_path, engine):
    script, zero = tmp_path / "calls.py", tmp_path / "zero.json"
    script.write_text(PER_RANK)
    zero.write_text(
        json.dumps({"optimizer": {"type": "AdamW", "params": {"torch_adam": True}}, "zero_optimization": {"stage": 2}})
    )
    options = OPTIONS | ({"deepspeed": str(zero)} if engine == "deepspeed" else {})
    command = [*launcher(engine, 2), str(script), str(shards), str(tmp_path), json.dumps(options)]
    root = str(Path(__file__).resolve().parents[2])
    process = spawn(command, tmp_path / "calls.log", tmp_path, {"PYTHONPATH": root})
    try:
        assert process.wait(240) == 0, (tmp_path / "calls.log").read_text()[-4000:]
    finally:
        stop_session(process)
    in_process(shards, tmp_path / "alone")
    same_series(tmp_path / "second", tmp_path / "alone")
    assert environment()


@pytest.mark.slow
def test_deepspeed_in_one_process_leaves_no_launcher_s_variables_and_can_be_called_again(shards, tmp_path):
    zero = tmp_path / "zero.json"
    zero.write_text(
        json.dumps({"optimizer": {"type": "AdamW", "params": {"torch_adam": True}}, "zero_optimization": {"stage": 2}})
    )
    before = state_of_the_process()
    first, second = (
        pretrain(shards=shards, output_dir=tmp_path / name, deepspeed=zero, **OPTIONS) for name in ("one", "two")
    )
    assert state_of_the_process() == before
    assert first.losses == second.losses
