"""Durable files, fault points, and what a log file shows."""

from __future__ import annotations

import hashlib
import os
from types import SimpleNamespace

import pytest
import torch

from pretraining.progress_bar import Lines, ProgressBar
from runtime.files.whole_files import read_json, sha256_of, write_json, write_text
from runtime.processes import fault_points
from runtime.processes.fault_points import fault_point


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "a.json", {"name": "ä", "list": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"name": "ä", "list": [1, 2.5, None]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"old": True})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"new": True})
    assert read_json(path) == {"old": True}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{}", b"[" * 200_000, b""])
def test_what_is_no_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is not readable as JSON"):
        read_json(tmp_path / "a.json")


def test_a_huge_file_is_not_read(tmp_path):
    write_text(tmp_path / "a.json", '"' + "x" * 20 + '"')
    with pytest.raises(ValueError, match="at most 10 are read"):
        read_json(tmp_path / "a.json", largest=10)


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


@pytest.fixture
def fault(monkeypatch):
    def switch_on(specification):
        monkeypatch.setattr(fault_points, "_specification", specification)
        monkeypatch.setattr(fault_points, "_passed", fault_points.Counter())

    return switch_on


def test_a_fault_happens_at_its_place_and_time_only(fault, monkeypatch):
    fault("here:2:fail")
    assert not fault_point("elsewhere")
    assert not fault_point("here")
    with pytest.raises(OSError, match="here"):
        fault_point("here")
    assert not fault_point("here")
    fault("here:1:fail")
    monkeypatch.setenv("FAULT_RANK", "1")
    assert not fault_point("here", rank=0)
    with pytest.raises(OSError, match="here"):
        fault_point("here", rank=1)


def test_not_a_number_once_or_from_then_on(fault):
    fault("loss:2:nan")
    assert [fault_point("loss") for _ in range(4)] == [False, True, False, False]
    fault("loss:2:nan_on")
    assert [fault_point("loss") for _ in range(4)] == [False, True, True, True]


def test_a_misspelt_action_is_refused(fault):
    fault("here:1:explode")
    with pytest.raises(ValueError, match="explode"):
        fault_point("here")


def test_a_log_file_gets_lines_without_carriage_returns(capsys):
    lines = Lines()
    for text in ("\r 10%|#   | loss=3.2", "", "\n", "\r 20%|##  | loss=3.1   "):
        lines.write(text)
    lines.flush()
    assert capsys.readouterr().err == "10%|#   | loss=3.2\n20%|##  | loss=3.1\n"


@pytest.mark.parametrize(
    ("unit", "end", "shown"), [("hours", 0.02, "0.01/0.02 hours ["), ("tokens", 2e6, "1.00M/2.00M [")]
)
def test_the_bar_counts_tokens_and_tells_hours(capsys, unit, end, shown):
    plan = SimpleNamespace(
        segments=[SimpleNamespace(start=0.0, end=end)],
        budget=SimpleNamespace(unit=unit, spent=lambda progress: end / 2),
        device=torch.device("cpu"),
        ranks=SimpleNamespace(world_size=1),
    )
    bar = ProgressBar(plan, disabled=False)
    bar.start(SimpleNamespace(segment=0, progress=None))
    bar.close()
    assert shown in capsys.readouterr().err


@pytest.mark.parametrize(("name", "share"), [("NVIDIA H100 80GB HBM3", "of peak=40%"), ("An unheard-of device", None)])
def test_the_bar_shows_loss_rate_share_of_the_peak_and_time_left(capsys, monkeypatch, name, share):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    plan = SimpleNamespace(
        segments=[SimpleNamespace(start=0.0, end=2e6)],
        budget=SimpleNamespace(unit="tokens", spent=lambda progress: 0.0),
        device=torch.device("cuda", 0),
        ranks=SimpleNamespace(world_size=2, is_main=True),
        tokens_per_update=100_000,
        flops_of_update=lambda row: 0.4 * 2 * 989e12 * 0.1,  # at ten updates a second, on two GPUs
    )
    bar = ProgressBar(plan, disabled=False)
    bar.start(SimpleNamespace(segment=0, progress=None))
    bar.update([{"loss": 2.5, "tokens_per_second": 1e6, "rows": [0, 15], "segment": "trunk"}])
    bar._bar.refresh()
    bar.close()
    shown = capsys.readouterr().err
    assert "trunk" in shown
    assert "loss=2.500, tokens/s=1,000,000" in shown
    assert "/2.00M [" in shown
    assert share in shown if share else "of peak" not in shown
