"""The command line: builds, reports, continues, and answers mistakes with one line."""

from __future__ import annotations

import errno
import io
import json
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from tqdm import tqdm

from launch.build_shards import main
from shards.building.report import progress_reporter
from shards.building.state import BuildState
from shards.storage.check import check_shards
from shards.storage.manifest import read_manifest


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 6))) for _ in range(300)]
    path = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"body": " ".join(rng.choices(words, k=60))}) for _ in range(60)]
    path.write_text("\n".join([*lines, '{"body": ""}', lines[0]]))
    return path


def arguments(corpus: Path, output: Path) -> list[str]:
    return ["--input", str(corpus), "--output_dir", str(output), "--text_column", "body", "--processes", "1"]


def test_a_corpus_becomes_shards_and_the_second_call_finds_them_built(corpus, tmp_path, capsys):
    call = [*arguments(corpus, tmp_path / "out"), "--vocab_size", "300", "--validation_fraction", "0.2"]
    assert main(call) == 0
    report = capsys.readouterr().out
    assert "62 documents of 1 source," in report
    assert "dropped: duplicate 1, empty 1" in report
    assert "MB text/s" in report
    manifest = read_manifest(tmp_path / "out")
    check_shards(tmp_path / "out", manifest, "full")
    assert manifest.tokenizer.vocab_size == 300
    assert manifest.data["options"]["text_column"] == "body"
    assert main(call) == 0
    assert "already built" in capsys.readouterr().out


def test_another_build_takes_the_tokenizer_of_the_first(corpus, tmp_path):
    assert main([*arguments(corpus, tmp_path / "a"), "--vocab_size", "300"]) == 0
    assert main([*arguments(corpus, tmp_path / "b"), "--tokenizer", str(tmp_path / "a" / "tokenizer")]) == 0
    first, second = read_manifest(tmp_path / "a"), read_manifest(tmp_path / "b")
    assert first.tokenizer == second.tokenizer
    assert first.splits["train"].shards[0].sha256 == second.splits["train"].shards[0].sha256


def test_mistakes_are_answered_with_what_to_do(corpus, tmp_path, capsys):
    assert main(["--input", str(tmp_path / "none.txt"), "--output_dir", str(tmp_path / "out")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["--input", str(corpus), "--output_dir", str(tmp_path / "out")]) == 2
    assert "--text_column" in capsys.readouterr().err
    for wrong, answer in (
        (["--vocab_sise", "9"], "--vocab_size"),
        (["--vocab_size", "9", "--tokenizer", "x"], "one of the two"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*arguments(corpus, tmp_path / "out"), *wrong])
        assert stop.value.code == 2
        assert answer in capsys.readouterr().err


def test_an_output_directory_that_cannot_be_used_is_answered_in_one_line(corpus, tmp_path, capsys, monkeypatch):
    assert main([*arguments(corpus, corpus), "--vocab_size", "300"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: [Errno 17] File exists: '{corpus}'")
    assert "name a file or directory" in error
    disk_full = sqlite3.OperationalError("database or disk is full")
    disk_full.sqlite_errorcode = sqlite3.SQLITE_FULL
    for cause, said in (
        (OSError(errno.ENOSPC, "No space left on device"), "check the disk (space"),
        (disk_full, f"--output_dir {tmp_path / 'out'} must be a directory"),
    ):
        monkeypatch.setattr(BuildState, "commit", Mock(side_effect=cause))
        call = [*arguments(corpus, tmp_path / "out"), "--vocab_size", "300"]
        assert main([*call, "--block_tokens", "64", "--blocks_per_shard", "1"]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith(f"error: {cause}: {said}")


def test_a_few_long_files_leave_nothing_to_hold_out_and_the_remedy_stands_there(tmp_path, caplog):
    text = tmp_path / "novel.txt"
    text.write_text("".join(f"paragraph {number} of a novel\n" for number in range(400)))
    call = ["--input", str(text), "--vocab_size", "300", "--processes", "1"]
    assert main([*call, "--output_dir", str(tmp_path / "files")]) == 0
    assert "the validation split is empty: a share of 0.01 is held out, and there is no more than 1 document;" in (
        caplog.text
    )
    caplog.clear()
    again = [*call, "--output_dir", str(tmp_path / "paragraphs"), "--document", "line", "--near_duplicates", "ignore"]
    assert main(again) == 0
    assert "split is empty" not in caplog.text


def test_the_bar_shows_a_speed_where_no_bytes_on_disk_are_known(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("shards.building.report.time.monotonic", lambda: float(next(clock)))
    bar = tqdm(disable=False, file=io.StringIO())
    unpaused: list[int] = []
    monkeypatch.setattr(bar, "unpause", lambda: unpaused.append(1))
    report = progress_reporter(bar)
    for chunk in range(1, 4):
        report({"bytes_read": 0, "bytes_total": 0, "text_bytes": chunk * 1_000_000, "tokens": chunk})
    assert bar.total is None
    assert unpaused == [1]  # the time before is that of the vocabulary
    assert bar.postfix.startswith("0.67 MB text/s")  # the first chunk starts the clock; 2 MB in 3 s since


def test_it_runs_as_a_script_from_any_directory(corpus, tmp_path, project_root):
    script = project_root / "launch" / "build_shards.py"
    call = [
        sys.executable,
        str(script),
        *arguments(corpus, tmp_path / "out"),
        "--vocab_size",
        "300",
        "--processes",
        "2",
    ]
    result = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "out: built" in result.stdout
    assert ", 1 shard, " in result.stdout
    lines = result.stderr.replace("\r", "\n").splitlines()
    assert "INFO training a vocabulary of 300 on up to 32 MB" in lines, "a message stands on a line of its own"
    assert not [line for line in lines if "B/s" in line], "the bar has one rate, that of text"
