"""One GPU: pretraining steps of BERT and ModernBERT by engine, attention and precision, beside the plain Trainer.

    python benchmarks/gpu.py                      one GPU, at most ten minutes
    python benchmarks/gpu.py --tiny               every path at tiny sizes, also on a CPU

Each engine has a process of its own (ZeRO and FSDP2 open a process group of one rank, the others none); within it the
cells take turns, and a second round goes backwards. A batch lies on the device; `launch/pretrain.py` and the Trainer
read theirs. A batch that does not fit is halved. Whatever is left when the time is over reads "not measured". Shares
are of the best product of two large matrices, measured in the same run. Prints a Markdown table; exits with 1 where a
cell failed.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig
from transformers.utils import is_flash_attn_2_available

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.throughput import Way, our_rate, spread
from benchmarks.transformers_trainer import (
    SPECIAL,
    TrainerRun,
    machine,
    matmul_rate,
    plain_model,
    random_shards,
    tokenizer_of,
    trainer_rate,
)
from pretraining.engines.build import build_engine
from pretraining.engines.deepspeed_config import load_config
from pretraining.engines.engine import Engine, EngineOptions
from pretraining.engines.torch_engine import TorchEngine
from pretraining.model.configuration import build_configuration
from pretraining.model.dropout import with_dropout
from pretraining.model.flops import update_flops
from pretraining.model.masked_lm import build_model
from runtime.machine import is_out_of_memory
from runtime.processes.ranks import Ranks, close_process_group, init_process_group
from shards.streaming.masking import mask_slots

ROOT = Path(__file__).resolve().parents[1]
MASK_RATE = 0.15
VOCABULARIES = {"bert": 30_522, "modernbert": 50_368}  # of the published models
PROCESSES = ("plain", "zero", "fsdp2")
TRAINER, COMMAND = "Trainer", "launch/pretrain.py"


@dataclass(frozen=True)
class Sizes:
    """What is measured: the full sizes, or tiny ones that show every path."""

    models: tuple[str, ...] = ("bert-base", "modernbert-base")
    lengths: tuple[int, ...] = (128, 512, 1024)
    middle: int = 512  # the length at which engines and precisions are compared
    tokens: int = 32_768  # of an update
    updates: int = 10
    warm: int = 3
    command_updates: int = 60  # of `launch/pretrain.py`: its clock is read once a second
    peak_width: int = 8192
    vocabulary: int = 0  # 0: that of the published model
    rounds: int = 2


FULL = Sizes()
TINY = Sizes(("bert-tiny", "modernbert-tiny"), (16,), 16, 64, 2, 1, 3, 128, 300, 1)


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    model: str
    length: int
    engine: str = "plain"  # plain, zero1, zero2, fsdp2, TRAINER or COMMAND
    attention: str = "sdpa"
    precision: str = "bf16"
    compiled: bool = False
    dropout: bool = False  # of the architecture; the Trainer's default
    task: str = "pretraining"

    @property
    def process(self) -> str:
        return "zero" if self.engine.startswith("zero") else "fsdp2" if self.engine == "fsdp2" else "plain"


def cells(sizes: Sizes) -> list[Cell]:
    """All cells, the most telling first: the time may be over before the last."""
    middle = [Cell(model, sizes.middle) for model in sizes.models]
    found = [*middle, *(replace(cell, engine=TRAINER, dropout=dropout) for cell in middle for dropout in (True, False))]
    others = [Cell(model, length) for model in sizes.models for length in sizes.lengths if length != sizes.middle]
    for cell in others:
        found += [cell, replace(cell, engine=TRAINER)]
    found += [replace(cell, attention="flash_attention_2") for cell in (*middle, *others)]
    found += [replace(cell, engine=engine) for engine in ("zero1", "zero2", "fsdp2", COMMAND) for cell in middle]
    found += [replace(cell, precision="fp16") for cell in middle]
    tuned = [replace(cell, length=sizes.lengths[0], task="fine-tuning") for cell in middle]
    found += [replace(cell, engine=engine) for cell in tuned for engine in ("plain", TRAINER)]
    return found + [replace(cell, compiled=True) for cell in (*middle, *others)]


class OneRankFSDP(TorchEngine):
    """FSDP2 in a world of one rank, where the engine would leave the module plain."""

    @property
    def sharded(self) -> bool:  # type: ignore[override]
        return True

    @sharded.setter
    def sharded(self, value: bool) -> None:
        pass


class Bench:
    """Measures cells in this process."""

    def __init__(self, sizes: Sizes, folder: Path) -> None:
        self.sizes, self.folder = sizes, folder
        self.device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        self.number = 0

    def measure(self, cell: Cell) -> dict[str, float]:
        """Tokens per second, operations per token, rows of an update and GB of the device; halves what does not fit."""
        if cell.attention == "flash_attention_2" and not (is_flash_attn_2_available() and torch.cuda.is_available()):
            raise ValueError("flash-attn is not installed")
        rows = max(1, self.sizes.tokens // cell.length)
        while True:
            try:
                return self._measure(cell, rows)
            except Exception as error:
                if rows == 1 or not is_out_of_memory(error):
                    raise
            rows //= 2  # outside the handler: the error holds the tensors of the try
            self._clear()

    def _measure(self, cell: Cell, rows: int) -> dict[str, float]:
        self._clear()
        torch.manual_seed(0)
        self.number += 1
        config = self.configuration(cell)
        config = config if cell.dropout else with_dropout(config, 0.0)
        measured = self._trainer if cell.engine == TRAINER else self._command if cell.engine == COMMAND else self._ours
        rate = measured(cell, config, rows)
        masked = 0 if cell.task == "fine-tuning" else rows * mask_slots(cell.length - 2, MASK_RATE)
        flops = update_flops(config, num_sequences=rows, sequence_length=cell.length, num_masked=masked)
        memory = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
        return {"rate": rate, "flops_per_token": flops / (rows * cell.length), "rows": rows, "memory": memory}

    def _clear(self) -> None:
        gc.collect()  # engines hold themselves through their hooks
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def configuration(self, cell: Cell) -> PreTrainedConfig:
        special = {name[1:-1].lower(): number for number, name in enumerate(SPECIAL)}
        return build_configuration(
            cell.model, vocab_size=self._vocabulary(cell), special_ids=special, max_seq_length=cell.length
        )

    def _vocabulary(self, cell: Cell) -> int:
        return self.sizes.vocabulary or VOCABULARIES[cell.model.split("-")[0]]

    def _ours(self, cell: Cell, config: PreTrainedConfig, rows: int) -> float:
        """Updates of the engine on a batch that lies on the device."""
        if cell.task == "fine-tuning":
            model, inputs, loss_of = classifier(config, cell, rows, self.device)
        else:
            model = build_model(config, attention=cell.attention)
            inputs, loss_of = masked_batch(config, cell, rows, self.device), mean_loss
        engine = self._engine(cell, model, rows)
        if cell.compiled:
            engine.compilation.start()
        engine.train()
        for number in range(self.sizes.warm + self.sizes.updates):
            if number == self.sizes.warm:
                self._wait()
                started = time.perf_counter()
            engine.backward(loss_of(engine(**inputs)), last=True)
            engine.step(1e-4)
        self._wait()
        return self.sizes.updates * rows * cell.length / (time.perf_counter() - started)

    def _engine(self, cell: Cell, model: nn.Module, rows: int) -> Engine:
        stage = cell.engine.removeprefix("zero")
        content = load_config(ROOT / "ds_configs" / f"zero{stage}.json") if stage != cell.engine else None
        options = EngineOptions(
            deepspeed=content, bf16=cell.precision == "bf16", fp16=cell.precision == "fp16", micro_batch_size=rows
        )
        if cell.engine == "fsdp2":
            init_process_group(Ranks(), self.device, always=True)
            return OneRankFSDP(model, options, ranks=Ranks(), device=self.device)
        return build_engine(model, options, ranks=Ranks(), device=self.device)

    def _wait(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def _trainer(self, cell: Cell, config: PreTrainedConfig, rows: int) -> float:
        run = TrainerRun(
            rows=rows,
            updates=self.sizes.warm + self.sizes.updates,
            warm_updates=self.sizes.warm,
            mask_rate=MASK_RATE,
            bf16=cell.precision == "bf16",
            workers=4 if torch.cuda.is_available() else 0,
        )
        count = rows * run.updates
        tokens = torch.randint(len(SPECIAL), config.vocab_size, (count, cell.length)).tolist()
        tokenizer = tokenizer_of([f"w{number}" for number in range(config.vocab_size - len(SPECIAL))])
        directory = self.folder / f"trainer-{self.number}"
        if cell.task == "fine-tuning":
            labelled = [{"input_ids": row, "labels": number % 2} for number, row in enumerate(tokens)]
            model = AutoModelForSequenceClassification.from_config(config, attn_implementation=cell.attention)
            return trainer_rate(model, labelled, None, run, directory)
        unmasked = [{"input_ids": row} for row in tokens]
        return trainer_rate(plain_model(config, attention=cell.attention), unmasked, tokenizer, run, directory)

    def _command(self, cell: Cell, config: PreTrainedConfig, rows: int) -> float:
        """`launch/pretrain.py`, its stream, clock and journal included."""
        shards = self.folder / f"shards-{config.vocab_size}" / "shards"
        if not shards.exists():
            random_shards(shards.parent, config.vocab_size)
        arguments = argparse.Namespace(
            length=cell.length,
            mask_rate=MASK_RATE,
            rows=rows,
            micro_rows=rows,
            updates=self.sizes.command_updates,
            warm_updates=max(1, self.sizes.command_updates // 3),
            workers=4 if torch.cuda.is_available() else 0,
        )
        way = Way(ours=True, bf16=cell.precision == "bf16", compiled=cell.compiled)
        return our_rate(cell.model, way, shards, arguments, self.folder / f"command-{self.number}")


def masked_batch(config: PreTrainedConfig, cell: Cell, rows: int, device: torch.device) -> dict[str, torch.Tensor]:
    """A micro-batch of random rows."""
    slots = mask_slots(cell.length - 2, MASK_RATE)
    places = torch.stack([torch.randperm(cell.length - 2)[:slots] + 1 for _ in range(rows)])
    batch = {
        "input_ids": torch.randint(len(SPECIAL), config.vocab_size, (rows, cell.length)),
        "mask_positions": places,
        "mask_labels": torch.randint(len(SPECIAL), config.vocab_size, (rows, slots)),
        "mask_weights": torch.ones(rows, slots),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def mean_loss(outputs: Any) -> torch.Tensor:
    return outputs["loss_sum"] / outputs["mask_count"]


def classifier(
    config: PreTrainedConfig, cell: Cell, rows: int, device: torch.device
) -> tuple[nn.Module, dict[str, torch.Tensor], Callable[[Any], torch.Tensor]]:
    """A classifier of two classes, a batch of full rows, and the loss of its outputs."""
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=cell.attention)
    labels = torch.randint(0, 2, (rows,), device=device)
    inputs = {"input_ids": torch.randint(len(SPECIAL), config.vocab_size, (rows, cell.length), device=device)}
    return model.train(), inputs, lambda outputs: nn.functional.cross_entropy(outputs.logits.float(), labels)


def work(sizes: Sizes, process: str, results: Path) -> None:
    """Measure the cells of one process; a line of JSON for each as soon as it is known."""
    chosen = [cell for cell in cells(sizes) if cell.process == process]
    with tempfile.TemporaryDirectory() as name, results.open("a", encoding="utf-8") as file:
        bench = Bench(sizes, Path(name))
        if process == PROCESSES[0]:
            for precision, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
                peak = matmul_rate(dtype, bench.device, width=sizes.peak_width)
                print(json.dumps({"precision": precision, "peak": peak}), file=file, flush=True)
        for cell in in_turn(chosen, sizes.rounds):
            line: dict[str, Any] = {"cell": asdict(cell)}
            try:
                line |= bench.measure(cell)
            except Exception as error:  # the other cells are still worth their time
                line["error"] = str(error).strip().split("\n")[0] or type(error).__name__
            print(json.dumps(line), file=file, flush=True)
    if dist.is_initialized():
        close_process_group()


def in_turn(chosen: Sequence[Cell], rounds: int) -> Iterator[Cell]:
    """Every round turns the order round; what compiles, or starts a whole command, runs once and last."""
    once = [cell for cell in chosen if cell.compiled or cell.engine == COMMAND]
    often = [cell for cell in chosen if cell not in once]
    for number in range(rounds):
        yield from often if number % 2 == 0 else reversed(often)
    yield from once


def table(sizes: Sizes, lines: Sequence[dict[str, Any]]) -> str:
    """A row for each cell, in Markdown; ratios are over the Trainer without dropout, of the same model and length."""
    peaks = {line["precision"]: line["peak"] for line in lines if "peak" in line}
    found: dict[Cell, list[dict[str, Any]]] = {}
    for line in lines:
        if "cell" in line:
            found.setdefault(Cell(**line["cell"]), []).append(line)
    rates = {cell: [line["rate"] for line in runs if "rate" in line] for cell, runs in found.items()}
    head = "| task | model | length | engine | attention | precision | tokens/s | share of peak | over the Trainer |"
    rows = [f"{head} rows | GB |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    for cell in cells(sizes):
        extras = [cell.precision, *(["compiled"] if cell.compiled else []), *(["dropout"] if cell.dropout else [])]
        what = [cell.task, cell.model, str(cell.length), cell.engine, cell.attention, ", ".join(extras)]
        if not rates.get(cell):
            errors = [line["error"] for line in found.get(cell, [])]
            rows.append(
                f"| {' | '.join([*what, f'not measured: {errors[0]}' if errors else 'not measured'])} | | | | |"
            )
            continue
        rate, last = statistics.median(rates[cell]), [line for line in found[cell] if "rate" in line][-1]
        peer = rates.get(Cell(cell.model, cell.length, TRAINER, task=cell.task))
        ratio = f"{rate / statistics.median(peer):.2f}" if peer else ""
        share = f"{rate * last['flops_per_token'] / peaks[cell.precision]:.0%}" if cell.precision in peaks else ""
        figures = [spread(rates[cell], ",.0f"), share, ratio, str(last["rows"]), f"{last['memory']:.1f}"]
        rows.append(f"| {' | '.join([*what, *figures])} |")
    peak = ", ".join(f"{rate / 1e12:,.1f} in {precision}" for precision, rate in peaks.items())
    return "\n".join([f"Peak of a matrix product in TFLOP/s: {peak}", "", *rows])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, on a GPU or a CPU")
    parser.add_argument("--minutes", type=float, default=10.0, help="whatever is left then is not measured")
    parser.add_argument("--process", choices=PROCESSES, help=argparse.SUPPRESS)  # of a child
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    sizes = TINY if arguments.tiny else FULL
    if arguments.process:
        work(sizes, arguments.process, arguments.results)
        return 0
    if not (torch.cuda.is_available() or arguments.tiny):
        print("not measured: this machine has no GPU (--tiny runs every path at tiny sizes)")
        return 0
    deadline, status = time.monotonic() + 60 * arguments.minutes, 0
    with tempfile.TemporaryDirectory() as name:
        results = Path(name) / "results.jsonl"
        results.touch()
        for process in ("zero", "fsdp2", "plain"):  # the longest last: it takes the time that is left
            command = [sys.executable, str(Path(__file__).resolve()), "--process", process, "--results", str(results)]
            try:
                left = max(1.0, deadline - time.monotonic())
                status |= subprocess.run([*command, *["--tiny"] * arguments.tiny], timeout=left, check=False).returncode
            except subprocess.TimeoutExpired:
                print(f"the time was over before all cells of {process!r} were measured")
        lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    print(f"\n`python {' '.join(sys.argv)}`, {datetime.now(UTC):%Y-%m-%d}\n{machine()}, torch {torch.__version__}\n")
    print(table(sizes, lines))
    failed = [line for line in lines if "error" in line and "not installed" not in line["error"]]
    return int(bool(status or failed))


if __name__ == "__main__":
    sys.exit(main())
