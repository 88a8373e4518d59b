"""Pretraining throughput beside the plain `transformers` Trainer: same model, tokens and batch, in turn, in one run.

    python benchmarks/throughput.py                                   2 CPU cores, two models: about ten minutes
    python benchmarks/throughput.py --models bert-small --rounds 5 --shards DIR --compile

First both sides train three updates in fp32 without dropout from the same weights on the same masked rows: their
losses must agree within LOSS_TOLERANCE. Then each way trains for a few updates, `--rounds` times; the order is turned
round from one round to the next. `launch/pretrain.py` runs as it is, its stream and its journal included; the Trainer
reads its rows from memory. Times leave out each side's warm updates. Prints Markdown: medians, and in brackets the
smallest and largest of the rounds; ratios are those of the two sides within a round; the share of the peak is that of
the best matrix product, measured before each round.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import DataCollatorForLanguageModeling, PreTrainedConfig, Trainer

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.transformers_trainer import (
    TrainerRun,
    machine,
    matmul_rate,
    plain_model,
    random_shards,
    token_rows,
    tokenizer_in,
    trainer_arguments,
    trainer_rate,
)
from launch.pretrain import main as pretrain
from pretraining.engines.engine import EngineOptions
from pretraining.engines.torch_engine import TorchEngine
from pretraining.engines.updating.optimizers import OptimizerOptions
from pretraining.model.configuration import build_configuration
from pretraining.model.dropout import encoder_dropout, with_dropout
from pretraining.model.flops import update_flops
from pretraining.model.masked_lm import PretrainingModel
from runtime.machine import bf16_support
from runtime.processes.ranks import Ranks
from shards.storage.manifest import read_manifest
from shards.streaming.masking import mask_slots

LOSS_TOLERANCE = 1e-3  # of the loss, in each of three updates
COMPARED_ROWS, COMPARED_UPDATES = 8, 3
IGNORED = -100  # label of a token that is not masked, in transformers


@dataclass(frozen=True)
class Way:
    """One way to train: a side, its precision, and whether dropout (the Trainer's) and compilation are on."""

    ours: bool
    bf16: bool
    dropout: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        parts = ["bf16" if self.bf16 else "fp32"]
        if not self.ours:
            parts.append("its dropout" if self.dropout else "no dropout")
        parts += ["compiled"] if self.compiled else []
        return f"{'launch/pretrain.py' if self.ours else 'Trainer'}, {', '.join(parts)}"


def ways_of(config: PreTrainedConfig, *, compiled: bool) -> list[Way]:
    """Both sides in both precisions, the Trainer with the architecture's dropout, where it has any, and without."""
    rates = [True, False] if any(encoder_dropout(config).values()) else [False]
    ways = [Way(False, bf16, dropout) for bf16 in (False, True) for dropout in rates]
    ways += [Way(True, bf16) for bf16 in (False, True)]
    return ways + ([Way(ours, True, compiled=True) for ours in (False, True)] if compiled else [])


def comparisons(ways: Sequence[Way], *, auto_bf16: bool) -> list[tuple[str, Way, Way]]:
    """(what is compared, our way, the Trainer's) for each row of the table of ratios."""
    found, has_dropout = [], any(way.dropout for way in ways)
    for peer in (way for way in ways if not way.ours):
        ending = ", the Trainer without dropout" if has_dropout and not peer.dropout else ""
        if peer.compiled:
            found.append((f"bf16 both, both compiled{ending}", Way(True, True, compiled=True), peer))
            continue
        if not peer.bf16:
            found.append((f"default against default{ending}", Way(True, auto_bf16), peer))
        if peer.bf16 or auto_bf16:  # on a processor without bf16 units the defaults are fp32 already
            found.append((f"{'bf16' if peer.bf16 else 'fp32'} both{ending}", Way(True, peer.bf16), peer))
    return found


def configuration(name: str, shards: Path, length: int) -> PreTrainedConfig:
    """Of the model that both sides train."""
    record = read_manifest(shards).tokenizer
    return build_configuration(
        name, vocab_size=record.vocab_size, special_ids=record.special_ids, max_seq_length=length
    )


def check_losses(config: PreTrainedConfig, shards: Path, arguments: argparse.Namespace, folder: Path) -> float:
    """The largest relative difference between the sides' losses; SystemExit where it is above LOSS_TOLERANCE.

    Both train from the same weights on the same masked rows, in fp32, without dropout, with the same AdamW.
    """
    tokenizer = tokenizer_in(shards)
    rows = min(COMPARED_ROWS, arguments.rows)
    torch.manual_seed(0)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=arguments.mask_rate)
    batch = dict(collator(token_rows(shards, arguments.length, rows, tokenizer)))
    theirs = their_losses(config, batch, folder)
    ours = our_losses(config, batch)
    difference = max(abs(mine / other - 1) for mine, other in zip(ours, theirs, strict=True))
    if not difference <= LOSS_TOLERANCE:
        raise SystemExit(
            f"{config.model_type}: the losses of the two sides differ by {difference:.2g} of the loss, more than "
            f"{LOSS_TOLERANCE:g}: ours {ours}, the Trainer's {theirs}; nothing was measured"
        )
    return difference


def their_losses(config: PreTrainedConfig, batch: dict[str, torch.Tensor], folder: Path) -> list[float]:
    losses: list[float] = []

    class Noting(Trainer):
        def compute_loss(self, *given: Any, **named: Any) -> Any:
            loss = super().compute_loss(*given, **named)
            losses.append(float((loss[0] if isinstance(loss, tuple) else loss).detach()))
            return loss

    count = len(batch["input_ids"])
    training = trainer_arguments(
        folder,
        per_device_train_batch_size=count,
        max_steps=COMPARED_UPDATES,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        adam_beta2=0.98,
        adam_epsilon=1e-6,
    )
    rows = [{name: tensor[row] for name, tensor in batch.items()} for row in range(count)]
    Noting(model=plain_model(with_dropout(config, 0.0)), args=training, train_dataset=rows).train()
    return losses


def our_losses(config: PreTrainedConfig, batch: dict[str, torch.Tensor]) -> list[float]:
    """Of the masked positions alone; rows with fewer of them are filled with a weight of zero."""
    labels = batch["labels"]
    masked = labels != IGNORED
    width = int(masked.sum(1).max())
    places = torch.argsort(masked.int(), dim=1, descending=True, stable=True)[:, :width]
    weights = masked.gather(1, places).float()
    inputs = {
        "input_ids": batch["input_ids"],
        "mask_positions": places,
        "mask_labels": labels.gather(1, places).clamp(min=0),
        "mask_weights": weights,
    }
    model = PretrainingModel(plain_model(with_dropout(config, 0.0)).train(), "mlm")
    options = EngineOptions(optimizer=OptimizerOptions(weight_decay=0.0))
    engine = TorchEngine(model, options, ranks=Ranks(), device=torch.device("cpu"))
    losses = []
    for _ in range(COMPARED_UPDATES):
        loss = engine(**inputs)["loss_sum"] / weights.sum()
        engine.backward(loss, last=True)
        engine.step(1e-3)
        losses.append(float(loss.detach()))
    return losses


def our_rate(name: str, way: Way, shards: Path, arguments: argparse.Namespace, directory: Path) -> float:
    """Tokens per second of `launch/pretrain.py`, run in this process."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = pretrain(command_line(name, way, shards, arguments, directory))
    if status:
        raise SystemExit(f"{said.getvalue()}\nlaunch/pretrain.py ended with {status}")
    return trunk_rate(directory, warm=arguments.warm_updates)


def command_line(name: str, way: Way, shards: Path, arguments: argparse.Namespace, directory: Path) -> list[str]:
    """The options of `launch/pretrain.py`: a trunk of `--updates` updates, and a branch of one."""
    decay = 0.01
    options = {
        "shards": shards,
        "output_dir": directory,
        "model": name,
        "max_seq_length": arguments.length,
        "mask_rate": arguments.mask_rate,
        "global_batch_rows": arguments.rows,
        "per_device_train_batch_size": arguments.micro_rows,
        "budget_tokens": arguments.updates * arguments.rows * arguments.length / (1 - decay),
        "decay_fraction": decay,
        "series": "0",
        "bf16": str(way.bf16).lower(),
        "torch_compile": str(way.compiled).lower(),
        "dataloader_num_workers": arguments.workers,
        "validation_rows": 8,
        "report_to": "none",
        "disable_tqdm": True,
        "learning_rate": 1e-4,
    }
    return [text for option, value in options.items() for text in (f"--{option}", str(value))]


def trunk_rate(directory: Path, *, warm: int) -> float:
    """Tokens per second by a run's journal: updates of the trunk after the warm ones."""
    lines = [json.loads(text) for text in (directory / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    return journal_rate([line for line in lines if line["segment"] == "trunk"], warm=warm)


def journal_rate(lines: Sequence[dict[str, Any]], *, warm: int) -> float:
    """Tokens per second between the end of update number `warm` and the last one; an exchange is not cut in two."""
    first = lines[warm - 1]
    return (lines[-1]["tokens"] - first["tokens"]) / (lines[-1]["seconds"] - first["seconds"])


def measure(
    name: str, config: PreTrainedConfig, shards: Path, arguments: argparse.Namespace, root: Path
) -> tuple[dict[Way, list[float]], dict[bool, list[float]]]:
    """Tokens per second of each way in each round, and the peak by precision (is it bf16?) before each round."""
    tokenizer = tokenizer_in(shards)
    rows = token_rows(shards, arguments.length, arguments.rows * arguments.updates, tokenizer)
    ways = ways_of(config, compiled=arguments.compile)
    rates: dict[Way, list[float]] = {way: [] for way in ways}
    peaks: dict[bool, list[float]] = {False: [], True: []}
    for number in range(arguments.rounds):
        for bf16, found in peaks.items():
            found.append(matmul_rate(torch.bfloat16 if bf16 else torch.float32, torch.device("cpu")))
        for way in ways if number % 2 == 0 else reversed(ways):
            folder = root / f"{name}-{number}-{ways.index(way)}"
            if way.ours:
                rate = our_rate(name, way, shards, arguments, folder)
            else:
                model = plain_model(config if way.dropout else with_dropout(config, 0.0), seed=number)
                run = TrainerRun(
                    rows=arguments.rows,
                    updates=arguments.updates,
                    warm_updates=arguments.warm_updates,
                    mask_rate=arguments.mask_rate,
                    micro_rows=arguments.micro_rows,
                    bf16=way.bf16,
                    compiled=way.compiled,
                    workers=arguments.workers,
                )
                rate = trainer_rate(model, rows, tokenizer, run, folder)
            rates[way].append(rate)
    return rates, peaks


def tables(
    name: str,
    rates: dict[Way, list[float]],
    peaks: dict[bool, list[float]],
    *,
    flops_per_token: float,
    auto_bf16: bool,
) -> str:
    """The table of ways and the table of ratios, in Markdown."""
    lines = [f"| {name} | tokens/s | share of the peak of its precision |", "|---|---|---|"]
    for way, found in rates.items():
        share = statistics.median(found) * flops_per_token / statistics.median(peaks[way.bf16])
        lines.append(f"| {way} | {spread(found, ',.0f')} | {share:.0%} |")
    lines += ["", f"| {name}: what is compared | ours over the Trainer |", "|---|---|"]
    for title, ours, peer in comparisons(list(rates), auto_bf16=auto_bf16):
        ratios = [mine / other for mine, other in zip(rates[ours], rates[peer], strict=True)]
        lines.append(f"| {title} | {spread(ratios, '.2f')} |")
    return "\n".join(lines)


def spread(values: Sequence[float], form: str) -> str:
    """The median, and the smallest and largest value."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="bert-mini,modernbert-mini")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=6, help="of each way in a round")
    parser.add_argument("--warm_updates", type=int, default=2, help="of these, left out of the times")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--micro_rows", type=int, default=0, help="of a micro-batch; 0: each side's own rule")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--mask_rate", type=float, default=0.15)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: one for each core")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--vocab_size", type=int, default=16_384, help="of the random tokens; --shards has its own")
    parser.add_argument("--shards", type=Path, help="made by launch/build_shards.py; default: random tokens")
    parser.add_argument("--compile", action="store_true", help="measure both sides compiled, too")
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.warm_updates < arguments.updates:
        parser.error(f"--warm_updates {arguments.warm_updates}: from 1 to one less than --updates {arguments.updates}")
    if torch.cuda.is_available():
        raise SystemExit("this benchmark is for CPUs: use benchmarks/gpu.py, or hide the GPU (CUDA_VISIBLE_DEVICES=)")
    threads = arguments.threads or len(os.sched_getaffinity(0))
    os.environ["OMP_NUM_THREADS"] = str(threads)  # launch/pretrain.py keeps the number of threads that is given
    torch.set_num_threads(threads)
    auto_bf16 = bf16_support("cpu")[0]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shards = arguments.shards or random_shards(root / "random", arguments.vocab_size)
        print(f"\n`python {' '.join(sys.argv)}`, {datetime.now(UTC):%Y-%m-%d}\n{machine()}, ", end="")
        print(f"torch {torch.__version__}, transformers {transformers.__version__}; {arguments.rounds} rounds\n")
        for model in arguments.models.split(","):
            config = configuration(model, shards, arguments.length)
            difference = check_losses(config, shards, arguments, root / f"{model}-losses")
            rates, peaks = measure(model, config, shards, arguments, root)
            masked = arguments.rows * mask_slots(arguments.length - 2, arguments.mask_rate)
            flops = update_flops(
                config, num_sequences=arguments.rows, sequence_length=arguments.length, num_masked=masked
            )
            flops_per_token = flops / (arguments.rows * arguments.length)
            fp32, bf16 = (statistics.median(found) / 1e9 for found in peaks.values())
            print(f"\n{model}: in fp32 without dropout the sides' losses agree to {difference:.1g} of the loss.")
            print(f"The best products run at {fp32:,.0f} GFLOP/s in fp32, {bf16:,.0f} in bf16.\n")
            print(tables(model, rates, peaks, flops_per_token=flops_per_token, auto_bf16=auto_bf16), flush=True)


if __name__ == "__main__":
    main()
