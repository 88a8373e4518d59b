"""Row 65 of docs/reliability.md: kills inside a look of `--until`, where a worker fine-tunes the newest checkpoint."""

from __future__ import annotations

import json
import os
import random
import signal

import pytest
from pretraining_runs import assert_same_course
from tiny_gap import WORDS, write_series, write_tasks

from tests.faults.commands import BUILD, FAILED, soon

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
CLOCK = {"seconds", "finished"}


def lines(path):
    return path.read_bytes().splitlines() if path.exists() else []


def scores(run):
    cells = [json.loads(line) for line in lines(run / "until" / "scores.jsonl")]
    return sorted(
        json.dumps({name: value for name, value in cell.items() if name not in CLOCK}, sort_keys=True) for cell in cells
    )


@pytest.fixture
def shards(commands, tmp_path):
    """Shards of the tasks' words; their tokenizer puts [CLS] and [SEP] around texts, as recipes need it."""
    generator = random.Random(0)
    texts = [" ".join(generator.choices(WORDS, k=generator.randrange(24, 80))) for _ in range(120)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    write_series(tmp_path / "words", ())
    argv = ["--input", tmp_path / "rows.jsonl", "--output_dir", tmp_path / "shards", "--processes", 1]
    argv += [
        "--tokenizer",
        tmp_path / "words" / "series" / "raw-0",
        "--block_tokens",
        512,
        "--near_duplicates",
        "ignore",
    ]
    commands.run(BUILD, [*argv, "--validation_fraction", 0.1], tmp_path / "build.log")
    return tmp_path / "shards"


def test_fault_65_kills_inside_a_look_of_until(commands, shards, full, tmp_path):
    """The command, and another time its worker, killed with some cells done: the same looks, cells, rows and losses."""
    tasks = write_tasks(tmp_path / "tasks")
    reference = write_series(tmp_path / "other", (300,)).parent / "series" / "annealed-300"
    cells = "--learning_rates 1e-3 --num_train_epochs 1 --max_seq_length 32 --doc_stride 8 --draws 200"
    options = {
        **full, "until": "gap_closed>=0.9", "reference": reference, "tasks": f"questions=qa:{tasks[0].place}",
        "finetuning": cells,
    }  # fmt: skip
    whole = tmp_path / "whole"
    command = commands.start_pretraining(shards, whole, options)
    assert command.wait(600) == 0, command.said[-3000:]
    looks = json.loads((whole / "until.json").read_text())["looks"]
    assert len(looks) == 2

    run = tmp_path / "run"
    command = commands.start_pretraining(shards, run, options)
    soon(lambda: len(lines(run / "until" / "scores.jsonl")) >= 2, "two cells", 300)
    command.kill()
    assert command.wait(10) == -signal.SIGKILL
    soon(lambda: not command.session(), "end of the worker", 20)

    command = commands.start_pretraining(shards, run, options)
    soon(lambda: len(lines(run / "until" / "scores.jsonl")) >= 10, "a cell of the second look", 300)
    workers = [pid for pid in command.session() if pid != command.pid]
    os.kill(workers[0], signal.SIGKILL)
    assert command.wait(120) == FAILED
    assert "a worker of --until failed" in command.said

    assert commands.start_pretraining(shards, run, options).wait(600) == 0
    assert_same_course(whole, run)
    assert scores(run) == scores(whole)
    assert json.loads((run / "until.json").read_text())["looks"] == looks
