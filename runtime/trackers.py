"""Experiment trackers, in addition to the journal: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from runtime.files.schemas import Schema, read_object
from runtime.files.whole_files import write_json

RUN_IDS_NAME = "reporters.json"
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow-skinny"}
REPORTERS = tuple(PACKAGES)


class Reporter(Protocol):
    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoardReporter:
    """Event files under `directory/tensorboard`; steps of an earlier start from `first_step` on are hidden."""

    def __init__(self, directory: Path, options: Mapping[str, Any], *, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = str(directory / "tensorboard")
        self._writer = SummaryWriter(folder, purge_step=first_step)
        self._writer.add_text("options", "\n".join(f"    {name}: {value}" for name, value in options.items()))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbReporter:
    """A run of Weights & Biases, which a restart continues; WANDB_MODE, WANDB_PROJECT and the rest are honoured.

    The update is logged as a separate value: W&B's step may never decrease, and a branch ends beyond the trunk's next
    update.
    """

    def __init__(self, directory: Path, options: Mapping[str, Any], *, first_step: int) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT", "pretraining")
        known = os.environ.get("WANDB_RUN_ID") or kept_run_id(directory, "wandb")
        self._run = wandb.init(project=project, dir=str(directory), config=dict(options), id=known, resume="allow")
        self._run.define_metric("*", step_metric="update")
        keep_run_id(directory, "wandb", self._run.id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({"update": step, **values})

    def close(self) -> None:
        self._run.finish()


class MlflowReporter:
    """A run of MLflow, which a restart continues, at MLFLOW_TRACKING_URI or in `directory/mlflow`."""

    def __init__(self, directory: Path, options: Mapping[str, Any], *, first_step: int) -> None:
        import mlflow

        if "MLFLOW_TRACKING_URI" not in os.environ:
            # The skinny package has no database, and files must be allowed since mlflow 3.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            has_database = importlib.util.find_spec("sqlalchemy") is not None
            local = directory.absolute()
            mlflow.set_tracking_uri(f"sqlite:///{local / 'mlflow.db'}" if has_database else (local / "mlflow").as_uri())
        self._mlflow = mlflow
        try:
            run = mlflow.start_run(run_id=os.environ.get("MLFLOW_RUN_ID") or kept_run_id(directory, "mlflow"))
        except mlflow.exceptions.MlflowException:  # that run is gone, or was on another server
            run = mlflow.start_run()
        keep_run_id(directory, "mlflow", run.info.run_id)
        mlflow.log_params({name: str(value)[:500] for name, value in options.items()})

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


def kept_run_id(directory: Path, name: str) -> str | None:
    """The tracker's own id of the run in this output directory; None before its first start."""
    path = directory / RUN_IDS_NAME
    return _kept_run_ids(path).get(name)


def keep_run_id(directory: Path, name: str, run_id: str) -> None:
    path = directory / RUN_IDS_NAME
    write_json(path, {**_kept_run_ids(path), name: run_id})


class _RunIds(Schema):
    """reporters.json: the name of a reporter -> its own id of the run."""

    __pydantic_extra__: dict[str, str] = Field(init=False)


def _kept_run_ids(path: Path) -> dict[str, str]:
    return read_object(path, _RunIds, "remove it, and the reporters begin new runs") if path.exists() else {}


def parse_reporters(names: str) -> list[str]:
    """`tensorboard,wandb` -> names; `none` -> nothing; ValueError for an unknown or uninstalled one."""
    wanted = [name.strip() for name in names.split(",") if name.strip() and name.strip() != "none"]
    for name in wanted:
        if name not in REPORTERS:
            raise ValueError(f"--report_to {name!r} is unknown: use {', '.join(REPORTERS)} or none")
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"--report_to {name} needs the package {name}: pip install {PACKAGES[name]}")
    return wanted


def build_reporters(names: str, directory: Path, options: Mapping[str, Any], *, first_step: int = 1) -> list[Reporter]:
    """The reporters of a run, the main rank's only; a resumed run continues at `first_step`."""
    classes: dict[str, Any] = {"tensorboard": TensorBoardReporter, "wandb": WandbReporter, "mlflow": MlflowReporter}
    return [classes[name](directory, options, first_step=first_step) for name in parse_reporters(names)]
