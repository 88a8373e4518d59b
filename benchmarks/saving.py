"""Seconds that training stands still for a save: written at once, and in the background. One rank, one run.

    python benchmarks/saving.py --model bert-base --rows 4 --rounds 5

A round trains for a while without a save, then saves in each way, taking turns, and trains on until the checkpoint is
committed. Prints a Markdown table with medians and, in brackets, the smallest and the largest of the rounds: the
stall; the seconds until the checkpoint is committed; and what the save costs the run in all: stall and updates until
then, less the time that as many updates take without a save.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from pretraining.checkpoints.saving import CheckpointSaver
from pretraining.engines.engine import EngineOptions
from pretraining.engines.torch_engine import TorchEngine
from pretraining.model.configuration import build_configuration
from pretraining.model.masked_lm import build_model
from runtime.plurals import counted
from runtime.processes.ranks import Ranks

WAYS = {"at once": False, "in the background": True}
VOCAB_SIZE, LENGTH, MASKED = 16_384, 128, 20


@dataclass(frozen=True)
class Measured:
    """Seconds of one save."""

    stall: float
    committed: float
    cost: float


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bert-small")
    parser.add_argument("--rows", type=int, default=2, help=f"sequences of {LENGTH} tokens in an update")
    parser.add_argument("--updates", type=int, default=5, help="updates without a save, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as torch chooses")
    parser.add_argument("--folder", type=Path, help="the disk to write to; default: the system's temporary folder")
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    trainer = Trainer(arguments.model, arguments.rows)
    found: dict[str, list[Measured]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        savers = {
            way: CheckpointSaver(Path(name) / str(number), Ranks(), in_background=WAYS[way], keep=1)
            for number, way in enumerate(WAYS)
        }
        for number in range(arguments.rounds + 1):
            for way in list(WAYS) if number % 2 else reversed(WAYS):
                measured = measure(trainer, savers[way], f"step-{number:08d}-000", arguments.updates)
                if number:  # the first round makes files and memory
                    found[way].append(measured)
        size = sum(path.stat().st_size for path in (Path(name) / "0").glob("step-*/*"))
    threads, rounds = counted(torch.get_num_threads(), "thread"), counted(arguments.rounds, "round")
    print(f"{arguments.model}, {trainer.num_parameters / 1e6:.1f} M parameters, {size / 1e6:,.0f} MB a checkpoint")
    print(f"{platform.machine()}, torch {torch.__version__}, {threads}, {rounds}, {datetime.now(UTC):%Y-%m-%d}\n")
    print(table(found))


class Trainer:
    """A model with random weights, trained on one random batch."""

    def __init__(self, model: str, rows: int) -> None:
        special = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
        config = build_configuration(model, vocab_size=VOCAB_SIZE, special_ids=special, max_seq_length=LENGTH)
        built = build_model(config)
        self.num_parameters = sum(parameter.numel() for parameter in built.parameters())
        self.engine = TorchEngine(built, EngineOptions(), ranks=Ranks(), device=torch.device("cpu"))
        self.engine.train()
        self.inputs = {
            "input_ids": torch.randint(5, VOCAB_SIZE, (rows, LENGTH)),
            "mask_positions": torch.arange(MASKED).repeat(rows, 1),
            "mask_labels": torch.randint(5, VOCAB_SIZE, (rows, MASKED)),
            "mask_weights": torch.ones(rows, MASKED),
        }
        self.update()

    def update(self) -> None:
        loss = self.engine(**self.inputs)["loss_sum"] / self.inputs["mask_weights"].sum()
        self.engine.backward(loss, last=True)
        self.engine.step(1e-4)


def measure(trainer: Trainer, saver: CheckpointSaver, name: str, updates: int) -> Measured:
    """One save, after `updates` updates whose time is the comparison."""
    started = time.perf_counter()
    for _ in range(updates):
        trainer.update()
    of_update = (time.perf_counter() - started) / updates
    started = time.perf_counter()
    saver.save(name, tensors=trainer.engine.state_tensors(), state={})
    stall, done = time.perf_counter() - started, 0
    while saver.pending:
        trainer.update()
        done += 1
        saver.poll()
    committed = time.perf_counter() - started
    return Measured(stall, committed, committed - done * of_update)


def table(found: dict[str, list[Measured]]) -> str:
    """The table, and the ratio of the two stalls."""
    lines = ["| written | training stands still, s | until committed, s | cost to the run, s |", "|---|---|---|---|"]
    for way, rounds in found.items():
        cells = [spread([getattr(one, name) for one in rounds]) for name in ("stall", "committed", "cost")]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    at_once, background = (statistics.median(one.stall for one in found[way]) for way in WAYS)
    return "\n".join([*lines, "", f"Training stands still {at_once / background:.1f} times less in the background."])


def spread(values: Sequence[float]) -> str:
    """The median, and the smallest and largest value."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
