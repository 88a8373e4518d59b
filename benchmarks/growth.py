"""What grows with what: tokens per second over length, size, ranks and workers; a corpus of a billion rows.

    python benchmarks/growth.py                          2 CPU cores, one thread: about ten minutes
    python benchmarks/growth.py --models "" --ranks_model ""       the simulation alone, under a minute

First a simulation: the manifest and the order of shards that are never written, read by one rank of 64 in places all
over two epochs; memory is the growth of this process's peak. Then updates of one batch of random rows that lies in
memory, micro-batches of about --tokens tokens. Then the command itself under torchrun.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.gpu import ROOT, Bench, Cell, Sizes
from benchmarks.throughput import Way, command_line, spread, trunk_rate
from benchmarks.transformers_trainer import random_shards
from runtime.machine import bf16_support
from shards.storage.manifest import read_manifest, write_manifest
from shards.streaming.order import Order, lanes_for, lanes_of

BLOCKS_OF_A_SHARD = 64
RANKS = 64
READS, ROWS_OF_A_READ = 200, 4096
SETTINGS = ((1, 0), (1, 1), (1, 2), (2, 0), (2, 1))  # ranks, worker processes of each


def training_table(models: Sequence[str], lengths: Sequence[int], *, tokens: int, rounds: int, folder: Path) -> str:
    """Tokens per second by size and length, in Markdown."""
    bf16 = bf16_support("cpu")[0] or torch.cuda.is_available()
    sizes = Sizes(tokens=tokens, updates=2, warm=1, vocabulary=16_384)
    bench = Bench(sizes, folder)
    found: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds):
        places = [(model, length) for model in models for length in lengths]
        for model, length in places if number % 2 == 0 else reversed(places):
            cell = Cell(model, length, precision="bf16" if bf16 else "fp32")
            found.setdefault((model, length), []).append(bench.measure(cell)["rate"])
    lines = ["| model | " + " | ".join(map(str, lengths)) + " |", "|---" * (len(lengths) + 1) + "|"]
    for model in models:
        figures = [f"{statistics.median(found[model, length]):,.0f}" for length in lengths]
        lines.append(f"| {model} | {' | '.join(figures)} |")
    return "\n".join(lines)


def ranks_table(model: str, *, rounds: int, updates: int, rows: int, folder: Path) -> str:
    """Tokens per second of `launch/pretrain.py` by ranks and worker processes of each, in Markdown."""
    shards = random_shards(folder / "random", 16_384)
    found: dict[tuple[int, int], list[float]] = {}
    for number in range(rounds):
        for ranks, workers in SETTINGS if number % 2 == 0 else SETTINGS[::-1]:
            directory = folder / f"run-{number}-{ranks}-{workers}"
            given = argparse.Namespace(
                length=128, mask_rate=0.15, rows=rows, micro_rows=0, updates=updates, workers=workers, warm_updates=2
            )
            options = command_line(model, Way(ours=True, bf16=bf16_support("cpu")[0]), shards, given, directory)
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
            command = [sys.executable, *launcher, str(ROOT / "launch" / "pretrain.py"), *options]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            if ended.returncode:
                raise SystemExit(f"{ended.stdout}{ended.stderr}\nlaunch/pretrain.py ended with {ended.returncode}")
            found.setdefault((ranks, workers), []).append(trunk_rate(directory, warm=2))
    lines = ["| ranks | workers of each | tokens/s |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {r} | {w} | {spread(found[r, w], ',.0f')} |" for r, w in SETTINGS)])


def corpus(num_rows: int, num_shards: int) -> Order:
    """The order of rows in `num_shards` shards of 64 blocks, whose rows differ a little from block to block."""
    blocks = num_shards * BLOCKS_OF_A_SHARD
    rows = np.full(blocks, num_rows // blocks, dtype=np.int64)
    rows[: num_rows - int(rows.sum())] += 1
    return Order(rows, 0, lanes_for(RANKS * 4), blocks_per_shard=np.full(num_shards, BLOCKS_OF_A_SHARD))


def simulate(num_rows: int, num_shards: int, *, reads: int = READS) -> dict[str, float]:
    """Seconds to open, seconds of a first and of a further read, MB that the peak grew by, rows read."""
    before, started = peak_bytes(), time.perf_counter()
    order = corpus(num_rows, num_shards)
    opened = time.perf_counter() - started
    lanes = lanes_of(RANKS - 1, RANKS, order.num_lanes)
    places = np.linspace(0, 2 * num_rows - ROWS_OF_A_READ, reads).astype(np.int64)
    seconds, read = [], 0
    for first in places.tolist():
        began = time.perf_counter()
        rows, blocks, inside = order.locate(first, ROWS_OF_A_READ, lanes)
        seconds.append(time.perf_counter() - began)
        if not (np.all(inside < order.rows_per_block[blocks]) and np.all(inside >= 0)):
            raise SystemExit(f"a row lies outside its block: global rows {rows[0]} to {rows[-1]}")
        read += len(rows)
    grown = (peak_bytes() - before) / 1e6
    return {"open": opened, "first": seconds[0], "next": statistics.median(seconds[1:]), "MB": grown, "rows": read}


def simulate_manifest(num_shards: int, folder: Path) -> dict[str, float]:
    """MB of the manifest of so many shards, seconds to read it, and MB that the peak grew by meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    child = multiprocessing.get_context("fork").Process(target=write_big_manifest, args=(num_shards, folder))
    child.start()  # another process writes it: its memory would hide that of the reading
    child.join()
    if child.exitcode:
        raise SystemExit(f"writing a manifest of {num_shards} shards ended with {child.exitcode}")
    written = sum(path.stat().st_size for path in folder.iterdir())
    before, started = peak_bytes(), time.perf_counter()
    manifest = read_manifest(folder)
    seconds = time.perf_counter() - started
    assert len(manifest.split("train").block_tokens()) == num_shards * BLOCKS_OF_A_SHARD
    return {"written": written / 1e6, "seconds": seconds, "MB": (peak_bytes() - before) / 1e6}


def write_big_manifest(num_shards: int, folder: Path) -> None:
    """Of shards that do not exist, each with the same blocks."""
    blocks = [
        {"key": f"train-{number:08d}", "offset": number << 18, "bytes": 1 << 18, "tokens": 65_536, "documents": 100}
        for number in range(BLOCKS_OF_A_SHARD)
    ]
    size = (BLOCKS_OF_A_SHARD << 18) + 1024
    shards = [
        {"name": f"train-{number:06d}.tar", "bytes": size, "sha256": f"{number:064x}", "blocks": blocks}
        for number in range(num_shards)
    ]
    special = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    total = num_shards * BLOCKS_OF_A_SHARD
    data = {
        "schema_version": 1,
        "tokenizer": {"path": "tokenizer", "fingerprint": "f" * 64, "vocab_size": 30_000, "special_ids": special},
        "token_dtype": "uint16",
        "block_tokens": 65_536,
        "splits": {"train": {"documents": 100 * total, "tokens": 65_536 * total, "shards": shards}},
    }
    write_manifest(folder, data)


def peak_bytes() -> int:
    """The most memory that this process has held."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if platform.system() == "Darwin" else held * 1024


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="bert-mini,bert-small,modernbert-mini,modernbert-small")
    parser.add_argument("--lengths", default="64,128,256,512,1024,2048")
    parser.add_argument("--tokens", type=int, default=4096, help="of a micro-batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus_rows", type=float, default=1e9)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--ranks_model", default="bert-mini", help="whose rate is measured over ranks; empty: none")
    parser.add_argument("--updates", type=int, default=8, help="of each run over ranks")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f"\n`python {' '.join(sys.argv)}`, one thread, {bf16_support('cpu')[1]}, torch {torch.__version__}\n")
    print("| rows | shards | s to open | s of the first read | s of a read | MB | rows of a rank |")
    print("|---|---|---|---|---|---|---|")
    for share in (0.01, 0.1, 1.0):
        rows, shards = int(arguments.corpus_rows * share), max(1, int(arguments.shards * share))
        found = simulate(rows, shards)
        times = " | ".join(f"{found[name]:.4f}" for name in ("open", "first", "next"))
        print(f"| {rows:,} | {shards:,} | {times} | {found['MB']:.0f} | {found['rows']:,} |", flush=True)
    models, lengths = arguments.models.split(","), [int(text) for text in arguments.lengths.split(",") if text]
    tokens, rounds = arguments.tokens, arguments.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        read = simulate_manifest(arguments.shards, folder / "manifest")
        print(f"\nThe manifest of {arguments.shards:,} shards has {read['written']:.0f} MB; reading it takes ", end="")
        print(f"{read['seconds']:.1f} s and {read['MB']:.0f} MB.", flush=True)
        if arguments.models and lengths:
            print("\nTokens per second by length, one thread:\n\n", end="")
            print(training_table(models, lengths, tokens=tokens, rounds=rounds, folder=folder), flush=True)
        if arguments.ranks_model:
            print("\n`launch/pretrain.py`, the cores shared by its ranks:\n")
            print(ranks_table(arguments.ranks_model, rounds=rounds, updates=arguments.updates, rows=48, folder=folder))


if __name__ == "__main__":
    main()
