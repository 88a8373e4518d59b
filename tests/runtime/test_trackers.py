"""Trackers beside the journal, each written and read back, without network."""

import importlib.util
import json
import struct
import time

import pytest
from file_mutations import few_and_many, refusals
from pretraining_runs import wait_for

from runtime.trackers import build_reporters, keep_run_id, kept_run_id, parse_reporters

OPTIONS = {"learning_rate": 1e-3, "model": "bert-tiny", "budget_tokens": None}


def log_three(reporters):
    for step in (1, 2, 3):
        for reporter in reporters:
            reporter.log({"loss": 3.0 - step, "accuracy": step / 10}, step)
    for reporter in reporters:
        reporter.close()


@few_and_many
def test_the_ids_of_runs_that_were_changed_at_random(tmp_path, rounds):
    keep_run_id(tmp_path, "wandb", "abc")
    keep_run_id(tmp_path, "mlflow", "def")
    refusals(tmp_path / "reporters.json", lambda: kept_run_id(tmp_path, "wandb"), rounds)


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


def fork_and_restart(name, directory):
    """Trunk to update 3, a branch's export at 6, the trunk from 4 on, and a restart at 5."""
    reporter = build_reporters(name, directory, OPTIONS)[0]
    for step in (1, 2, 3):
        reporter.log({"loss": float(step)}, step)
    reporter.log({"annealed/validation_loss": 1.0}, 6)
    for step in (4, 5):
        reporter.log({"loss": float(step)}, step)
    reporter.close()
    reporter = build_reporters(name, directory, OPTIONS, first_step=5)[0]
    reporter.log({"loss": 5.5}, 5)
    reporter.close()


LOSSES = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 5.0), (5, 5.5)]


def wandb_records(path):
    """The protobuf records of an offline run: behind 7 bytes of header, each with checksum, length and type."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, records, start = path.read_bytes(), [], 7
    while start + 7 <= len(content):
        _, length, _ = struct.unpack("<IHB", content[start : start + 7])
        records.append(Record.FromString(content[start + 7 : start + 7 + length]))
        start += 7 + length
    return records


def test_wandb_offline_keeps_the_trunk_beside_its_branches_and_one_run_over_restarts(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    fork_and_restart("wandb", tmp_path)

    def records():  # the service writes on after `finish` has returned
        files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
        found = [record for file in files for record in wandb_records(file)]
        return found if sum(record.WhichOneof("record_type") == "exit" for record in found) == 2 else None

    found = wait_for(records, "two finished parts", seconds=60)
    runs = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert {run.run_id for run in runs} == {json.loads((tmp_path / "reporters.json").read_text())["wandb"]}
    assert '"bert-tiny"' in [item.value_json for run in runs for item in run.config.update]
    history = [
        {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(line["update"], line["loss"]) for line in history if "loss" in line] == LOSSES
    assert [line["update"] for line in history if "annealed/validation_loss" in line] == [6]
    metrics = [record.metric for record in found if record.WhichOneof("record_type") == "metric"]
    assert {(metric.glob_name, metric.step_metric) for metric in metrics} == {("*", "update")}


def test_mlflow_in_a_local_store_keeps_one_run_over_restarts(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    fork_and_restart("mlflow", tmp_path)
    client = mlflow.MlflowClient()
    runs = client.search_runs(["0"])
    assert len(runs) == 1
    assert runs[0].data.params["model"] == "bert-tiny"
    history = client.get_metric_history(runs[0].info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == LOSSES
    client.delete_run(runs[0].info.run_id)
    build_reporters("mlflow", tmp_path, OPTIONS)[0].close()  # a run that is gone is no obstacle
    assert len(client.search_runs(["0"])) == 1


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
