"""Reports beside the journal, each really written and read back, without network."""

import importlib.util
import time

import pytest
from pretraining_runs import wait_for

from pretraining.reporting import build_reporters, parse_reporters

OPTIONS = {"learning_rate": 1e-3, "model": "bert-tiny", "budget_tokens": None}


def log_three(reporters):
    for step in (1, 2, 3):
        for reporter in reporters:
            reporter.log({"loss": 3.0 - step, "accuracy": step / 10}, step)
    for reporter in reporters:
        reporter.close()


def test_tensorboard_files_hold_the_figures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_three(build_reporters("tensorboard", tmp_path, OPTIONS))
    time.sleep(1.1)  # TensorBoard orders the files of a run by the second in their names
    # A run that is resumed at update 3 hides what was logged beyond it.
    reporters = build_reporters("tensorboard", tmp_path, OPTIONS, first_step=3)
    reporters[0].log({"loss": 9.0}, 3)
    reporters[0].close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0), (2, 1.0), (3, 9.0)]
    assert "bert-tiny" in str(events.Tensors("options/text_summary")[0].tensor_proto)


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log_three(build_reporters("wandb", tmp_path, OPTIONS))
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 1
    # The service writes on after `finish` has returned.
    content = wait_for(lambda: b"accuracy" in files[0].read_bytes() and files[0].read_bytes(), "figures", seconds=60)
    assert b"bert-tiny" in content


def test_mlflow_in_a_local_store(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log_three(build_reporters("mlflow", tmp_path, OPTIONS))
    client = mlflow.MlflowClient()
    run = client.search_runs(["0"])[0]
    assert run.data.params["model"] == "bert-tiny"
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")] == [
        (1, 2.0),
        (2, 1.0),
        (3, 0.0),
    ]


def test_names_are_split_and_none_is_none():
    assert parse_reporters("none") == []
    assert parse_reporters("") == []
    assert parse_reporters(" tensorboard , none") == ["tensorboard"]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="use tensorboard, wandb, mlflow or none"):
        parse_reporters("tensorbord")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install mlflow-skinny"):
        parse_reporters("mlflow")
