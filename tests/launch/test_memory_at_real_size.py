"""The memory that a plan announces beside the memory that two ranks take, for a BERT-base on the CPU.

Run as a script, this file is one rank: it writes down the peak of its resident memory while it trains.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import pytest

WITHIN = 0.1
# Larger blocks are given back to the system when they are freed; what the allocator keeps is no part of the estimate.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
TRAINING = ["--report_to", "none", "--per_device_train_batch_size", "2", "--max_seq_length", "64"]
LAUNCHERS = {"zero0": "deepspeed", "zero1": "torchrun", "zero2": "deepspeed", "zero3": "torchrun"}
FSDP = ("full_shard", "shard_grad_op")


def write_model(directory: Path) -> Path:
    """A BERT-base with random weights; without a tokenizer, so that shards of any vocabulary go with it."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    BertForMaskedLM(BertConfig(pad_token_id=0)).save_pretrained(directory)
    return directory


def write_rte(folder: Path) -> Path:
    """16 pairs to train on, long enough to fill the rows, and 4 to score."""
    from tiny_examples import BAD, GOOD, PLAIN

    source = random.Random(0)
    folder.mkdir(parents=True)
    for stem, count in (("train", 16), ("dev", 4)):
        lines = ["index\tsentence1\tsentence2\tlabel"]
        for number in range(count):
            texts = [" ".join(source.choices([*GOOD, *BAD, *PLAIN], k=40)) for _ in range(2)]
            lines.append("\t".join([str(number), *texts, ("entailment", "not_entailment")[number % 2]]))
        (folder / f"{stem}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def launched(sharding: str, port: int, peaks: Path, arguments: list[str], project_root: Path, place: Path) -> float:
    """Run two ranks; returns the bytes that the plan announces for the rank that takes most."""
    launcher = LAUNCHERS.get(sharding, "torchrun")
    ranks = ["--num_gpus", "2"] if launcher == "deepspeed" else ["--nproc_per_node", "2"]
    configuration = ["--deepspeed", str(project_root / "ds_configs" / f"{sharding}.json")]
    command = [
        str(Path(sys.executable).parent / launcher),
        *ranks,
        "--master_port",
        str(port),
        __file__,
        str(peaks),
        *arguments,
        *TRAINING,
        *(["--fsdp", sharding] if sharding in FSDP else configuration),
    ]
    environment = {**os.environ, **ALLOCATOR, "PYTHONPATH": str(project_root)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    announced = re.search(r"([\d.]+) GB per rank on the device, ([\d.]+) GB on the host", done.stdout)
    assert announced, done.stdout[-2000:]
    return 1e9 * (float(announced[1]) + float(announced[2]))  # on a CPU both lie in the process


def compared(estimate: float, peaks: Path, name: str, copies: Sequence[int] = (0, 0)) -> None:
    """`copies`: bytes that each rank copies to save them; the plan announces the largest."""
    measured = {rank: json.loads(Path(f"{peaks}.{rank}").read_text()) for rank in (0, 1)}
    expected = {rank: estimate - max(copies) + copies[rank] for rank in measured}
    for rank, found in measured.items():
        assert found["updates"] >= 2
        print(f"{name}, rank {rank}: {found['peak'] / 1e9:.3f} GB, estimate {expected[rank] / 1e9:.2f} GB")
    for rank, found in measured.items():
        assert 1 - WITHIN <= found["peak"] / expected[rank] <= 1 + WITHIN, (name, expected, measured)


@pytest.mark.long
@pytest.mark.parametrize(
    ("sharding", "bf16", "rows"),
    [
        *((sharding, "false", 4) for sharding in (*LAUNCHERS, *FSDP)),
        *((sharding, "true", 4) for sharding in ("zero1", "zero2", "zero3", "full_shard")),
        ("shard_grad_op", "false", 8),  # two micro-batches an update: gradients stay whole between them
    ],
)
def test_pretraining_takes_the_memory_that_its_plan_announces(sharding, bf16, rows, tmp_path, project_root, free_port):
    from pretraining_runs import write_shards
    from transformers import AutoConfig

    from pretraining.model.families import shape_only
    from pretraining.model.memory import checkpoint_shares

    model, peaks = write_model(tmp_path / "model"), tmp_path / "peaks"
    shards = ["--shards", str(write_shards(tmp_path / "data"))]
    arguments = ["pretrain", *shards, "--model_name_or_path", str(model), "--output_dir", str(tmp_path / "out")]
    arguments += [
        "--budget_tokens",
        "490",
        "--series",
        "0",
        "--validation_rows",
        "4",
        "--disable_tqdm",
        "true",
        "--bf16",
        bf16,
        "--global_batch_rows",
        str(rows),
    ]
    estimate = launched(sharding, free_port, peaks, arguments, project_root, tmp_path)
    copies = checkpoint_shares(shape_only(AutoConfig.from_pretrained(model)), 2)
    compared(estimate, peaks, f"pretraining, {sharding}, bf16 {bf16}, {rows} rows", copies)


@pytest.mark.long
@pytest.mark.parametrize("bf16", ["false", "true"])
@pytest.mark.parametrize("sharding", ["zero2", "zero3"])
def test_fine_tuning_takes_the_memory_that_it_announces(sharding, bf16, tmp_path, project_root, free_port):
    from tiny_examples import write_tiny_model

    model, peaks = write_tiny_model(tmp_path / "model"), tmp_path / "peaks"
    write_model(Path(model))  # beside the tiny model's tokenizer
    write_rte(tmp_path / "glue" / "RTE")
    arguments = ["glue", "--task_name", "rte", "--data_dir", str(tmp_path / "glue"), "--model_name_or_path", model]
    arguments += ["--max_steps", "2", "--save_model", "false", "--output_dir", str(tmp_path / "out"), "--bf16", bf16]
    arguments += ["--global_batch_rows", "4"]
    estimate = launched(sharding, free_port, peaks, arguments, project_root, tmp_path)
    compared(estimate, peaks, f"fine-tuning, {sharding}, bf16 {bf16}")


def resident(name: str) -> int:
    """VmRSS (now) or VmHWM (at most since `forget_peak`) of this process in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def watched(engine: type, peaks: str) -> type:
    """The engine, noting the peak of each update, from its forward pass on; what is done between updates is left out.

    Counted from what the process held before the engine was built, the model's weights apart.
    """
    import torch

    class Watched(engine):
        def __init__(self, model: torch.nn.Module, *arguments: Any, **options: Any) -> None:
            weights = sum(parameter.nbytes for parameter in model.parameters())
            self.before, self.updates, self.peak = resident("VmRSS") - weights, 0, 0
            super().__init__(model, *arguments, **options)

        def __call__(self, **inputs: Any) -> Any:
            if torch.is_grad_enabled():
                forget_peak()
            return super().__call__(**inputs)

        def step(self, learning_rate: float) -> torch.Tensor:
            norm = super().step(learning_rate)
            self.updates += 1
            self.peak = max(self.peak, resident("VmHWM") - self.before)
            found = {"peak": self.peak, "updates": self.updates, "before": self.before}
            Path(f"{peaks}.{self.ranks.rank}").write_text(json.dumps(found))
            return norm

    return Watched


def main() -> int:
    peaks, command, *arguments = [one for one in sys.argv[1:] if not one.startswith("--local_rank")]
    if "--deepspeed" in arguments:
        from pretraining.engines import deepspeed_engine as module

        module.DeepSpeedEngine = watched(module.DeepSpeedEngine, peaks)  # type: ignore[misc]
    else:
        from pretraining.engines import build

        build.TorchEngine = watched(build.TorchEngine, peaks)  # type: ignore[misc]
    if command == "pretrain":
        from launch import pretrain

        return pretrain.main(arguments)
    from finetuning import glue

    return glue.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
