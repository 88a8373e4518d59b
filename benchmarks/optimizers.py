"""Muon beside AdamW: held-out loss at equal tokens and at equal time, four rates of each, the best at three seeds.

    python benchmarks/optimizers.py --shards DIR --output_dir DIR

Every run is `launch/pretrain.py` in a process of its own, with an annealed checkpoint at half of the tokens and at all;
one of AdamW and one of Muon run at the same time, each on half of the cores, so that both see the machine's quiet and
busy hours. Runs that are finished are read and not run again; a run that was interrupted continues. Prints Markdown
tables: the held-out loss after all tokens, and
at the time at which the faster optimizer ended, between the two checkpoints of the slower one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from pretraining.checkpoints.series import read_series
from pretraining.loop.training_data import build_small_world

ROOT = Path(__file__).resolve().parents[1]

RATES = {"adamw": (1e-3, 2e-3, 4e-3, 8e-3), "muon": (5e-3, 1e-2, 2e-2, 4e-2)}
SEEDS = (0, 1, 2)
FINISHED = "finished.json"
TINY = ("--config_overrides", "num_hidden_layers=2,hidden_size=32,num_attention_heads=2,intermediate_size=48")


@dataclass(frozen=True)
class Setting:
    """One run: the optimizer, its rate (Muon's is that of the matrices) and the seed."""

    optimizer: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.optimizer}-{self.rate:g}-seed{self.seed}"


@dataclass(frozen=True)
class Curve:
    """Held-out losses of the annealed checkpoints, by rising tokens, and the seconds of training that each took."""

    tokens: tuple[float, ...]
    seconds: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """At the last budget; infinity where training failed."""
        return self.losses[-1]

    def loss_at(self, seconds: float) -> float:
        """At a time: between two budgets along a line in the logarithm of time, outside them the nearest."""
        points = list(zip(self.seconds, self.losses, strict=True))
        if seconds <= points[0][0]:
            return points[0][1]
        for (start, first), (end, last) in pairwise(points):
            if seconds <= end:
                share = math.log(seconds / start) / math.log(end / start)
                return first + share * (last - first)
        return points[-1][1]


def command(setting: Setting, arguments: argparse.Namespace, directory: Path) -> list[str]:
    """The command line of one run."""
    muon = ["--muon_learning_rate", f"{setting.rate}"] if setting.optimizer == "muon" else []
    rate = arguments.learning_rate if setting.optimizer == "muon" else setting.rate
    tiny = (*TINY, "--validation_rows", "8", "--global_batch_rows", "12") if arguments.size == "tiny" else ()
    length = 32 if arguments.size == "tiny" else 128
    options = {
        "shards": arguments.shards,
        "output_dir": directory,
        "model": "modernbert-tiny",
        "max_seq_length": length,
        "optimizer": setting.optimizer,
        "learning_rate": rate,
        "seed": setting.seed,
        "budget_tokens": arguments.tokens,
        "series": "2",
        "bf16": arguments.bf16,
        "torch_compile": arguments.torch_compile,
        "report_to": "none",
        "disable_tqdm": True,
    }
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [sys.executable, str(ROOT / "launch" / "pretrain.py"), *given, *muon, *tiny]


def run(settings: Sequence[Setting], arguments: argparse.Namespace) -> dict[Setting, Curve]:
    """Train those that are not done at the same time; SystemExit when one fails for another reason than its rate."""
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // len(settings))
    started = []
    for number, setting in enumerate(settings):
        directory = Path(arguments.output_dir) / setting.name
        wanted = command(setting, arguments, directory)
        marker = directory / FINISHED
        if marker.exists() and json.loads(marker.read_text())["command"] == wanted[1:]:
            continue
        print(f"{setting.name} ...", flush=True)
        directory.parent.mkdir(parents=True, exist_ok=True)
        own = set(cores[number * share : (number + 1) * share]) or set(cores)
        with directory.with_name(f"{setting.name}.log").open("w") as file:
            process = subprocess.Popen(
                wanted,
                stdout=file,
                stderr=subprocess.STDOUT,
                preexec_fn=partial(os.sched_setaffinity, 0, own),
                env={**os.environ, "OMP_NUM_THREADS": str(len(own))},
            )
        started.append((setting, wanted, marker, process))
    ended = [(*one, process.wait()) for *one, process in started]
    for setting, wanted, marker, status in ended:
        log = marker.parent.with_name(f"{setting.name}.log")
        diverged = status != 0 and "in a row had a loss or gradient that is not finite" in log.read_text()
        if status and not diverged:
            raise SystemExit(f"{setting.name} ended with {status}: see {log}")
        marker.write_text(json.dumps({"command": wanted[1:], "diverged": diverged}))
    return {setting: read(setting, arguments) for setting in settings}


def read(setting: Setting, arguments: argparse.Namespace) -> Curve:
    """The curve of a run that is done."""
    directory = Path(arguments.output_dir) / setting.name
    diverged = json.loads((directory / FINISHED).read_text())["diverged"]
    found = Curve((1.0,), (1.0,), (math.inf,)) if diverged else curve(directory)
    print(f"{setting.name}: held-out loss {found.loss:.3f}, {found.seconds[-1]:.0f} s", flush=True)
    return found


def curve(directory: Path) -> Curve:
    """Of a finished run; a checkpoint's seconds are those of trunk and branch, without evaluation and saving."""
    entries = sorted(
        (entry for entry in read_series(directory) if entry["kind"] == "annealed"), key=lambda entry: entry["seconds"]
    )
    losses = tuple(math.inf if entry["validation_loss"] is None else entry["validation_loss"] for entry in entries)
    return Curve(tuple(entry["tokens_seen"] for entry in entries), tuple(entry["seconds"] for entry in entries), losses)


def compare(arguments: argparse.Namespace) -> str:
    """All runs, and the tables."""
    curves: dict[Setting, Curve] = {}
    for rates in zip(*RATES.values(), strict=True):
        pair = [Setting(optimizer, rate, SEEDS[0]) for optimizer, rate in zip(RATES, rates, strict=True)]
        curves.update(run(pair, arguments))
    best = {
        optimizer: min((setting for setting in curves if setting.optimizer == optimizer), key=lambda s: curves[s].loss)
        for optimizer in RATES
    }
    for seed in SEEDS[1:]:
        curves.update(run([replace(setting, seed=seed) for setting in best.values()], arguments))
    return "\n\n".join([rates_table(curves), seeds_table(curves, best)])


def rates_table(curves: dict[Setting, Curve]) -> str:
    """Every rate at the first seed."""
    lines = ["| optimizer | rate | held-out loss | tokens/s |", "|---|---|---|---|"]
    for setting in sorted((one for one in curves if one.seed == SEEDS[0]), key=lambda one: (one.optimizer, one.rate)):
        found = curves[setting]
        speed = found.tokens[-1] / found.seconds[-1]
        lines.append(f"| {setting.optimizer} | {setting.rate:g} | {found.loss:.3f} | {speed:,.0f} |")
    return "\n".join(lines)


def seeds_table(curves: dict[Setting, Curve], best: dict[str, Setting]) -> str:
    """The best rates over the seeds: mean and spread at equal tokens, and at the time of each seed's faster run."""
    lines = ["| optimizer | rate | loss at equal tokens | at equal time | seeds |", "|---|---|---|---|---|"]
    ends = {seed: min(curves[Setting(o, s.rate, seed)].seconds[-1] for o, s in best.items()) for seed in SEEDS}
    for optimizer, setting in best.items():
        runs = {seed: curves[Setting(optimizer, setting.rate, seed)] for seed in SEEDS}
        at_tokens = [one.loss for one in runs.values()]
        at_time = [one.loss_at(ends[seed]) for seed, one in runs.items()]
        each = ", ".join(f"{loss:.3f}" for loss in at_tokens)
        lines.append(f"| {optimizer} | {setting.rate:g} | {spread(at_tokens)} | {spread(at_time)} | {each} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", default=None, help="default: the small world")
    parser.add_argument("--output_dir", default="runs/optimizers", help="runs in it that are finished are not repeated")
    parser.add_argument("--tokens", type=float, default=None, help="default: 3 million; tiny: 6,000")
    parser.add_argument("--learning_rate", type=float, default=2e-3, help="of AdamW's share beside Muon")
    parser.add_argument("--bf16", default="auto")
    parser.add_argument("--torch_compile", default="true", help="the first pair compiles, the others read its cache")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    arguments = parser.parse_args()
    if arguments.tokens is None:
        arguments.tokens = 3e6 if arguments.size == "full" else 6e3
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.shards is None:
            arguments.shards = str(build_small_world(Path(temporary) / "world"))
        print(f"\n{compare(arguments)}\n\n`python {' '.join(sys.argv)}`")


if __name__ == "__main__":
    main()
