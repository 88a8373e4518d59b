"""Starts real pretraining jobs on tiny shards and reads what they leave, for tests of the loop and of its faults."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import pytest
import torch

from runtime.processes.ranks import Ranks, close_process_group, init_process_group

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch" / "pretrain.py"
TIMEOUT_SECONDS = 240
# Marks every process of a job in its environment.
JOB_VARIABLE = "PRETRAINING_TEST_JOB"
_marks: dict[int, str] = {}

# 12 rows of 30 tokens an update, 20 updates: in the second pass over the shards for the last few.
TINY = {
    "model": "modernbert-tiny",
    "config_overrides": "num_hidden_layers=2,hidden_size=32,num_attention_heads=2,intermediate_size=48",
    "max_seq_length": 32,
    "mask_rate": 0.2,
    "learning_rate": 5e-3,
    "global_batch_rows": 12,
    "per_device_train_batch_size": 3,
    "budget_tokens": 7_000,
    "series": 0,
    "validation_rows": 8,
    "bf16": "false",
    "torch_compile": "false",  # auto would compile what a test starts for hours and kills
    "report_to": "none",
    "save_minutes": 1000,
    "disable_tqdm": "true",
}


def write_tokenizer(directory: Path, words: Sequence[str], *, template: bool = False) -> Path:
    """A tokenizer with these words and no others: nothing is trained, so that no library decides the ids.

    `template`: it writes [CLS] A [SEP] B [SEP], which recipes need.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: number for number, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if template:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{name[1:-1].lower()}_token": name for name in special}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(directory)
    return directory


def write_shards(directory: Path, *, template: bool = False, **options: Any) -> Path:
    """A few thousand tokens of made-up sentences over forty words, in blocks of 512 tokens.

    `template` as in `write_tokenizer`.
    """
    from shards.building.builder import build_shards
    from shards.building.options import BuildOptions

    generator = random.Random(5)
    words = sorted({"".join(generator.choices("abcdefghij", k=4)) for _ in range(40)})
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "corpus.jsonl").open("w") as file:
        for _ in range(120):
            start, length = generator.randrange(40), generator.randrange(24, 80)
            text = " ".join(words[(start + step * step) % len(words)] for step in range(length))
            file.write(json.dumps({"text": text}) + "\n")
    build_shards(
        BuildOptions(
            input=[str(directory / "corpus.jsonl")],
            output_dir=str(directory / "shards"),
            tokenizer=str(write_tokenizer(directory / "tokenizer", words, template=template)),
            block_tokens=512,
            near_duplicates="ignore",
            validation_fraction=0.1,
            processes=1,
            **options,
        )
    )
    return directory / "shards"


def arguments(shards: Path, output: Path, options: Mapping[str, Any]) -> list[str]:
    """The command line of a tiny run; an option that is None is left out."""
    chosen = {**TINY, "shards": shards, "output_dir": output, **options}
    return [part for name, value in chosen.items() if value is not None for part in (f"--{name}", str(value))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spawn(
    command: Sequence[str], log: Path, folder: Path, variables: Mapping[str, str] | None
) -> subprocess.Popen[Any]:
    """Start a job whose processes can be found again."""
    mark = f"{os.getpid()}-{len(_marks)}-{time.monotonic_ns()}"
    with log.open("a") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment({**(variables or {}), JOB_VARIABLE: mark}),
            start_new_session=True,
        )
    _marks[process.pid] = mark
    return process


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process' environment with one thread a rank and none of a launcher's variables."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    scripts = str(Path(sys.executable).parent)
    return {
        **kept,
        "PATH": f"{scripts}{os.pathsep}{kept.get('PATH', '')}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **(changes or {}),
    }


def launcher(engine: str, num_ranks: int) -> list[str]:
    """How a job is started: "deepspeed", "torchrun" or "python" (one process)."""
    scripts, port = Path(sys.executable).parent, free_port()
    if engine == "deepspeed":
        return [str(scripts / "deepspeed"), "--num_accelerators", str(num_ranks), "--master_port", str(port)]
    if engine == "torchrun":
        return [str(scripts / "torchrun"), "--nproc_per_node", str(num_ranks), "--master_port", str(port)]
    return [sys.executable]


def start(
    engine: str,
    shards: Path,
    output: Path,
    options: Mapping[str, Any] | None = None,
    *,
    num_ranks: int = 2,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[Any]:
    """Start a job in a session of its own, its output going to `output` with .log at the end."""
    command = [*launcher(engine, num_ranks), str(SCRIPT), *arguments(shards, output, options or {})]
    output.parent.mkdir(parents=True, exist_ok=True)
    return spawn(command, log_of(output), output.parent, variables)


def run(
    engine: str,
    shards: Path,
    output: Path,
    options: Mapping[str, Any] | None = None,
    *,
    num_ranks: int = 2,
    variables: Mapping[str, str] | None = None,
    status: int | None = 0,
) -> str:
    """Run a job to its end; returns what it printed. Fails unless it ends with `status` (None: any but 0)."""
    process = start(engine, shards, output, options, num_ranks=num_ranks, variables=variables)
    try:
        code = process.wait(TIMEOUT_SECONDS)
    finally:
        stop_session(process)
    printed = log_of(output).read_text()
    assert code != 0 if status is None else code == status, f"exit status {code}:\n{printed[-6000:]}"
    return printed


def run_together(
    engine: str, shards: Path, outputs: Mapping[Path, Mapping[str, Any]], *, num_ranks: int = 2, status: int = 0
) -> str:
    """Run several jobs one after the other in the processes of one launch; returns what they printed."""
    folder = next(iter(outputs)).parent
    file = folder / f"jobs-{free_port()}.json"
    file.write_text(json.dumps([arguments(shards, output, options) for output, options in outputs.items()]))
    command = [*launcher(engine, num_ranks), str(ROOT / "tests" / "support" / "pretraining_jobs.py"), str(file)]
    process = spawn(command, file.with_suffix(".log"), folder, None)
    try:
        code = process.wait(4 * TIMEOUT_SECONDS)
    finally:
        stop_session(process)
    printed = file.with_suffix(".log").read_text()
    assert code == status, f"exit status {code}:\n{printed[-6000:]}"
    return printed


def log_of(output: Path) -> Path:
    return output.with_name(output.name + ".log")


def stop_session(process: subprocess.Popen[Any]) -> None:
    """Kill what is left of a job, its ranks included: torchrun gives each a session of its own."""
    for pid in members(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if process.poll() is None:
        process.wait(30)


def members(job: int) -> list[int]:
    """Running processes that were started by the job of that pid, whatever their parent is now."""
    mark = f"{JOB_VARIABLE}={_marks[job]}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if state not in "ZX" and mark in variables:
                found.append(int(entry.name))
    return found


def ranks_of(job: int) -> dict[int, int]:
    """Pid of each rank of a job, by rank: the processes whose environment names one and that run our script."""
    found = {}
    for pid in members(job):
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = next((int(item[5:]) for item in variables if item.startswith(b"RANK=")), None)
        is_script = any(part.endswith(b"pretrain.py") for part in command[1:4])
        if rank is not None and is_script:
            found.setdefault(rank, pid)
    return found


def wait_for(condition: Any, what: str, *, seconds: float = TIMEOUT_SECONDS, process: Any = None) -> Any:
    """Poll until `condition()` is true; AssertionError after `seconds`, or when the process has ended before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        assert process is None or process.poll() is None, f"the job ended before {what}"
        time.sleep(0.1)
    raise AssertionError(f"no {what} within {seconds} s")


def journal(output: Path) -> list[dict[str, Any]]:
    path = output / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def course(output: Path) -> list[tuple[str, int, tuple[int, int], float]]:
    """What a run did, in order: segment, update, rows, loss."""
    return [(line["segment"], line["update"], tuple(line["rows"]), line["loss"]) for line in journal(output)]


def assert_same_course(left: Path, right: Path, *, tolerance: float = 1e-5) -> None:
    """The same updates on the same rows with the same losses, in the same order."""
    first, second = course(left), course(right)
    assert [entry[:3] for entry in first] == [entry[:3] for entry in second]
    assert len(first) > 0
    differences = [abs(one[3] - other[3]) for one, other in zip(first, second, strict=True)]
    assert max(differences) <= tolerance, (
        f"largest difference {max(differences)} at entry {differences.index(max(differences))}"
    )


def checkpoints(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "checkpoints").glob("step-*"))


def series(output: Path) -> list[dict[str, Any]]:
    return list(json.loads((output / "series.json").read_text())["checkpoints"])


def on_forked_ranks(work: Callable[[int], Any], folder: Path, *, num_ranks: int) -> list[Any]:
    """Run a function on ranks that are forked from this process and meet over gloo; what each gave, as JSON."""
    port = free_port()
    children = [
        os.fork() or _forked_rank(work, Ranks(rank, rank, num_ranks, num_ranks), port, folder / f"{rank}.json")
        for rank in range(num_ranks)
    ]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * num_ranks
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(num_ranks)]


def _forked_rank(work: Callable[[int], Any], ranks: Ranks, port: int, path: Path) -> NoReturn:
    status = 1
    try:
        variables = {"RANK": ranks.rank, "LOCAL_RANK": ranks.rank, "WORLD_SIZE": ranks.world_size, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in variables.items()}, MASTER_ADDR="127.0.0.1")
        init_process_group(ranks, torch.device("cpu"))
        path.write_text(json.dumps(work(ranks.rank)))
        close_process_group()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def in_process(
    shards: Path, output: Path, options: Mapping[str, Any] | None = None, *, fault: str = "", status: int = 0
) -> None:
    """Run a job of one rank in this process, on one thread: no start-up to pay for. Fails unless it ends so."""
    from launch.pretrain import main
    from runtime.processes import fault_points

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        with (
            mock.patch("os.sched_getaffinity", return_value={0}),
            mock.patch.object(fault_points, "_specification", fault),
            mock.patch.object(fault_points, "_passed", Counter()),
        ):
            assert main(arguments(shards, output, options or {})) == status
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def same_series(left: Path, right: Path) -> None:
    """AssertionError unless two runs exported the same checkpoints, with validation losses equal to 1e-5."""
    figures = [
        [
            (entry["kind"], entry["budget_tokens"], entry["tokens_seen"], entry["validation_loss"])
            for entry in series(run)
        ]
        for run in (left, right)
    ]
    for mine, theirs in zip(*figures, strict=True):
        assert mine[:3] == theirs[:3]
        assert mine[3] == pytest.approx(theirs[3], abs=1e-5)
