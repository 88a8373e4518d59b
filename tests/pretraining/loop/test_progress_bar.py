"""The bar of a run: on a terminal, in a log file, in every unit of a budget."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pretraining.loop.progress_bar import Lines, ProgressBar


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
        bf16=False,
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
        budget=SimpleNamespace(unit="tokens", is_counted=True, spent=lambda progress: 0.0),
        cost_of_update=lambda row: 100_000.0,
        device=torch.device("cuda", 0),
        bf16=True,
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


@pytest.mark.parametrize("bf16", [True, False])
def test_the_peak_of_a_cpu_is_that_of_the_precision_of_the_run(monkeypatch, bf16):
    rates = {torch.bfloat16: 8e12, torch.float32: 1e12}
    monkeypatch.setattr("pretraining.model.flops.measured_cpu_flops", lambda threads, dtype: rates[dtype])
    plan = SimpleNamespace(
        segments=[SimpleNamespace(start=0.0, end=1.0)],
        budget=SimpleNamespace(unit="tokens", spent=lambda progress: 0.0),
        device=torch.device("cpu"),
        bf16=bf16,
        ranks=SimpleNamespace(world_size=2),
    )
    bar = ProgressBar(plan, disabled=True)
    bar.start(SimpleNamespace(segment=0, progress=None))
    bar.close()
    assert bar._peak == (16e12 if bf16 else 2e12)
