"""How fast text becomes shards beside the tokenizer alone and `datasets.map`, and how much memory it takes.

    python benchmarks/build_shards.py                                      the generated small world and its tokenizer
    python benchmarks/build_shards.py --input 'wiki_en/*.xz' --tokenizer DIR/tokenizer
    python benchmarks/build_shards.py --input 'wiki_zh/*.xz' --tokenizer DIR/tokenizer --rounds 0 --memory 1 3 12

Prints Markdown. Every measurement is a process of its own, methods take turns, and the CPU seconds stand beside the
wall clock: on a shared machine they are the steadier figure.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

METHODS = ("encode_batch", "build_shards", "datasets.map")
BATCH_DOCUMENTS = 1_000


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", help="a glob of files of one format; the small world's corpus if left out")
    parser.add_argument("--tokenizer", help="needed with --input, and only then")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--files", type=int, default=4, help="how many of the files the speed is measured on")
    parser.add_argument("--memory", type=int, nargs="*", default=[], help="also measure memory on so many files, each")
    parser.add_argument("--measure", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if (options.input is None) != (options.tokenizer is None):
        parser.error("--input and --tokenizer belong together: give both, or none for the small world")
    with tempfile.TemporaryDirectory() as folder:
        if options.input is None:
            options.input, options.tokenizer = write_small_world(Path(folder))
        return measure_all(options)


def measure_all(options: argparse.Namespace) -> int:
    """One method, for the process that measures it, or all of them as tables."""
    files = sorted(glob.glob(options.input))
    if options.measure:
        print(json.dumps(measure(options.measure, files[: options.files], options.tokenizer)))
        return 0
    print(f"{machine()}, {date.today()}, load average at the start {os.getloadavg()[0]:.1f}\n")
    if options.rounds:
        print_speed(options)
    if options.memory:
        print_memory([files[:number] for number in options.memory], options.tokenizer)
    return 0


def write_small_world(folder: Path) -> tuple[str, str]:
    """The generated corpus (some MB) and a tokenizer trained on it: input and tokenizer."""
    from pretraining.loop.training_data import build_small_world

    shards = build_small_world(folder)
    return str(folder / "corpus.jsonl"), str(shards / "tokenizer")


def print_speed(options: argparse.Namespace) -> None:
    """Rounds of all methods, as a table."""
    print("| method | round | MB of text | seconds | MB/s | CPU seconds a 10 MB |\n|---|---|---|---|---|---|")
    for number in range(options.rounds):
        for method in METHODS:
            before = cpu_seconds()
            call = [sys.executable, __file__, "--input", options.input, "--files", str(options.files)]
            call += ["--tokenizer", options.tokenizer, "--measure", method]
            result = subprocess.run(call, capture_output=True, text=True, check=True)
            found = json.loads(result.stdout.splitlines()[-1])
            megabytes, seconds = found["bytes"] / 1e6, found["seconds"]
            cpu = found.get("cpu_seconds", cpu_seconds() - before)
            print(
                f"| {method} | {number + 1} | {megabytes:.1f} | {seconds:.1f} | {megabytes / seconds:.2f} "
                f"| {10 * cpu / megabytes:.2f} |",
                flush=True,
            )


def print_memory(inputs: list[list[str]], tokenizer: str) -> None:
    """Peak resident memory of a build of each list of files: of the process that writes, of a worker, of all."""
    print(
        "\n| files | MB of text | documents kept | duplicate index, MB | first process, MB | largest worker, MB "
        "| all at one moment, MB |\n|---|---|---|---|---|---|---|"
    )
    for chosen in inputs:
        peaks, index_bytes, manifest = peak_memory(chosen, tokenizer)
        documents = sum(part["documents"] for part in manifest["splits"].values())
        first, worker, together = (round(peak / 1e6) for peak in peaks)
        print(
            f"| {len(chosen)} | {manifest['text_bytes'] / 1e6:.1f} | {documents:,} | {index_bytes / 1e6:.1f} "
            f"| {first} | {worker} | {together} |",
            flush=True,
        )


def measure(method: str, files: list[str], tokenizer: str) -> dict[str, float]:
    """One method on the files: bytes of text, wall seconds and CPU seconds; reading counts for build_shards only."""
    if method == "build_shards":
        return measure_build(files, tokenizer)
    texts = list(documents(files))
    size = sum(len(text.encode("utf-8")) for text in texts)
    from shards.tokenization.vocabulary import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    if method == "encode_batch":
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        backend = loaded.backend_tokenizer
        cpu, started = cpu_seconds(), time.perf_counter()
        for start in range(0, len(texts), BATCH_DOCUMENTS):
            backend.encode_batch(texts[start : start + BATCH_DOCUMENTS], add_special_tokens=False)
        return {"bytes": size, "seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - cpu}
    import datasets

    with tempfile.TemporaryDirectory() as folder:
        data = datasets.Dataset.from_dict({"text": texts})
        data.save_to_disk(f"{folder}/text")
        data = datasets.load_from_disk(f"{folder}/text")
        del texts

        def tokenize(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            return {"input_ids": loaded(batch["text"], add_special_tokens=False)["input_ids"]}

        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        cpu, started = cpu_seconds(), time.perf_counter()
        data.map(tokenize, batched=True, num_proc=2, remove_columns=["text"], cache_file_name=f"{folder}/tokens.arrow")
        return {"bytes": size, "seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - cpu}


def measure_build(files: list[str], tokenizer: str) -> dict[str, float]:
    """The build end to end, from compressed files to the manifest, worker start-up included."""
    from shards.building.builder import build_shards
    from shards.building.options import BuildOptions

    with tempfile.TemporaryDirectory() as folder:
        options = BuildOptions(input=files, output_dir=f"{folder}/shards", tokenizer=tokenizer)
        cpu = cpu_seconds()
        summary = build_shards(options)
        return {"bytes": summary.text_bytes, "seconds": summary.seconds, "cpu_seconds": cpu_seconds() - cpu}


def documents(files: list[str]) -> Iterator[str]:
    """All documents of the files."""
    from shards.text.readers import DocumentReader
    from shards.text.sources import find_sources

    for source in find_sources(files):
        yield from filter(None, DocumentReader().read(source))


def peak_memory(files: list[str], tokenizer: str) -> tuple[tuple[int, int, int], int, dict]:
    """Build by command; ((peak RSS of the first process, of a worker, of all), bytes of state on disk, manifest)."""
    import psutil

    folder = Path(tempfile.mkdtemp())
    output = folder / "shards"
    call = [sys.executable, str(ROOT / "launch" / "build_shards.py"), "--input", *files]
    call += ["--output_dir", str(output), "--tokenizer", tokenizer]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tree, peaks, index_bytes = psutil.Process(process.pid), (0, 0, 0), 0
    while process.poll() is None:
        resident = []
        for member in [tree, *tree.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                # A worker between fork and exec still has its parent's command line, and its memory, which is shared.
                if member == tree or member.cmdline() != call:
                    resident.append(member.memory_info().rss)
        now = (resident[0], max(resident[1:], default=0), sum(resident)) if resident else (0, 0, 0)
        peaks = (max(peaks[0], now[0]), max(peaks[1], now[1]), max(peaks[2], now[2]))
        files_of_state = list((output / "building").glob("state.sqlite3*"))
        with contextlib.suppress(FileNotFoundError):
            index_bytes = max(index_bytes, sum(path.stat().st_size for path in files_of_state))
        time.sleep(0.1)
    manifest = json.loads((output / "manifest.json").read_text())
    shutil.rmtree(folder)
    return peaks, index_bytes, manifest


def cpu_seconds() -> float:
    """CPU seconds of this process and the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def machine() -> str:
    """Cores and processor name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    return f"{len(os.sched_getaffinity(0))} CPU cores ({name})"


if __name__ == "__main__":
    sys.exit(main())
