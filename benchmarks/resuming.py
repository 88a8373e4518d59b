"""Seconds from opening the shards to the first micro-batch in the middle of an epoch, beside skipping by iterating.

    python benchmarks/resuming.py --num_blocks 8192

writes a gigabyte of random tokens and prints a Markdown table: how long a run waits that starts at the first row, that
starts again in the middle of the epoch, and that passes over the rows as the plain Trainer does, which makes every
batch that it then throws away. That peer passes over `--skipped` batches only; the whole way to the middle is computed
from its pace. The files were just written, so they lie in the page cache: both sides are spared the disk.
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import torch

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.stream import BLOCK_TOKENS, cpu_name, plain, vocabulary, write_directory
from shards.streaming.stream import MaskedStream, StreamOptions

LENGTH, GLOBAL_BATCH_ROWS, MICRO_BATCH_ROWS = 128, 48, 48


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_blocks", type=int, default=8192, help=f"blocks of {BLOCK_TOKENS} tokens of two bytes")
    parser.add_argument("--skipped", type=int, default=300, help="batches that the peer passes over")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_directory(directory, arguments.num_blocks)
        size = sum(path.stat().st_size for path in directory.iterdir())
        middle = MaskedStream(directory, OPTIONS, 0, 1, vocabulary=vocabulary()).rows_per_epoch // 2
        middle -= middle % GLOBAL_BATCH_ROWS
        print(f"{cpu_name()}, one thread, {size / 1e9:.2f} GB, {datetime.now(UTC):%Y-%m-%d}\n")
        print("| start | batches passed over | seconds to the first batch | MB read |")
        print("|---|---|---|---|")
        for title, row in (("first row", 0), ("middle of the epoch", middle)):
            found = [start(directory, row) for _ in range(arguments.rounds)]
            seconds, read = (sorted(column) for column in zip(*found, strict=True))
            spread = f"{statistics.median(seconds):.2f} [{seconds[0]:.2f}, {seconds[-1]:.2f}]"
            print(f"| this stream, {title} | 0 | {spread} | {statistics.median(read) / 1e6:.1f} |", flush=True)
        passed, seconds, read = skip(directory, arguments.skipped)
        print(f"| webdataset and collator, iterating | {passed} | {seconds:.2f} | {read / 1e6:.1f} |")
        batches = middle // GLOBAL_BATCH_ROWS
        whole = f"{seconds / passed * batches:.0f} (computed)"
        print(f"| webdataset and collator, to the middle | {batches} | {whole} | |")


OPTIONS = StreamOptions(global_batch_rows=GLOBAL_BATCH_ROWS, micro_batch_rows=MICRO_BATCH_ROWS, lengths=((0, LENGTH),))


def start(directory: Path, row: int) -> tuple[float, float]:
    """Seconds to the micro-batch of global row `row`, opening and checking the shards included, and bytes read."""
    gc.collect()
    began, read = time.perf_counter(), bytes_read()
    stream = MaskedStream(directory, OPTIONS, 0, 1, vocabulary=vocabulary())
    next(iter(stream.batches(row)))
    return time.perf_counter() - began, bytes_read() - read


def skip(directory: Path, batches: int) -> tuple[int, float, float]:
    """Batches passed over, the seconds that took, and bytes read."""
    began, read = time.perf_counter(), bytes_read()
    passed = sum(1 for _ in islice(plain(directory, LENGTH, MICRO_BATCH_ROWS), batches))
    return passed, time.perf_counter() - began, bytes_read() - read


def bytes_read() -> float:
    """Bytes that this process has read by system calls; nan where the system does not count them."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    except OSError:
        return float("nan")
    return float(dict(line.split(": ") for line in lines)["rchar"])


if __name__ == "__main__":
    main()
