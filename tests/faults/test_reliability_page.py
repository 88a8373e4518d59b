"""docs/reliability.md: each row has a test of its number, its figures are the ledger's, and more kills can be added."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| \d+ \|", line)]
LEDGER = ROOT / "tests" / "chaos" / "ledger.jsonl"


def names_by_file() -> dict[str, set[str]]:
    paths = [*(ROOT / "tests").rglob("test_*.py")]
    return {
        path.relative_to(ROOT).as_posix(): {
            node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
        }
        for path in paths
    }


def test_the_rows_are_numbered_without_a_gap():
    assert [int(row.split("|")[1]) for row in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) >= 67


def test_every_row_names_a_test_of_its_number():
    written = set().union(*names_by_file().values())
    for row in ROWS:
        number = int(row.split("|")[1])
        names = re.findall(r"`(test_fault_\d\d_\w+)`", row)
        assert names, f"row {number} names no test"
        assert all(name.startswith(f"test_fault_{number:02}_") for name in names), row
        assert set(names) <= written, f"row {number}: {sorted(set(names) - written)} do not exist"


def test_every_test_of_a_fault_is_in_its_row():
    named = set(re.findall(r"`(test_fault_\d\d_\w+)`", PAGE))
    written = {name for names in names_by_file().values() for name in names if name.startswith("test_fault_")}
    assert written == named


def test_the_counts_of_kills_are_those_of_the_ledger():
    lines = [json.loads(line) for line in LEDGER.read_text(encoding="utf-8").splitlines()]
    kills = Counter(line["kind"] for line in lines if "victim" in line)
    compared = Counter(line["kind"] for line in lines if "differences" in line)
    lost = Counter(line["kind"] for line in lines if line.get("differences") or line["status"])
    for kind, number in kills.items():
        row = rf"^\| {kind} \| {number} \| {compared[kind]} \| [^|]* \| {lost[kind]} \|"
        assert re.search(row, PAGE, re.MULTILINE), (kind, number)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["pretraining", "build", "study", "finetuning"])
def test_what_is_killed_at_random_moments_loses_nothing(tmp_path, kind):
    script = ROOT / "tests" / "chaos" / "kill_runs.py"
    ledger = tmp_path / "ledger.jsonl"
    options = ["--what", kind, "--seed", "1", "--folder", str(tmp_path / "runs"), "--ledger", str(ledger)]
    for kills in (2, 3):  # the second call continues where the first ended
        ended = subprocess.run([sys.executable, str(script), *options, "--kills", str(kills)], capture_output=True)
        assert ended.returncode == 0, ended.stdout.decode()[-3000:] + ended.stderr.decode()[-3000:]
        lines = [json.loads(line) for line in ledger.read_text().splitlines()]
        assert [line["number"] for line in lines if "victim" in line] == list(range(1, kills + 1))
    assert all(line["differences"] == [] for line in lines if "differences" in line)
