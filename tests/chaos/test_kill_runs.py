"""A few kills of each kind of command; many, and their ledger, are in docs/reliability.md."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["pretraining", "build", "study", "finetuning"])
def test_what_is_killed_at_random_moments_loses_nothing(project_root, tmp_path, kind):
    script = project_root / "tests" / "chaos" / "kill_runs.py"
    ledger = tmp_path / "ledger.jsonl"
    options = ["--what", kind, "--seed", "1", "--folder", str(tmp_path / "runs"), "--ledger", str(ledger)]
    for kills in (2, 3):  # the second call continues where the first ended
        ended = subprocess.run([sys.executable, str(script), *options, "--kills", str(kills)], capture_output=True)
        assert ended.returncode == 0, ended.stdout.decode()[-3000:] + ended.stderr.decode()[-3000:]
        lines = [json.loads(line) for line in ledger.read_text().splitlines()]
        assert [line["number"] for line in lines if "victim" in line] == list(range(1, kills + 1))
    assert all(line["differences"] == [] for line in lines if "differences" in line)
