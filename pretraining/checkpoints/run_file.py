"""`run.json`, which says whose a run's directory is: schema and reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from runtime.files.schemas import Schema, read_file

RUN_NAME = "run.json"
REMEDY = "restore it or remove it"


class RunFile(Schema):
    """run.json: which run a directory belongs to, and where its shards were."""

    schema_version: Literal[1] = 1
    identity: dict[str, Any] | None = None  # None: the run is unknown
    shards: str | None = None

    @field_validator("identity")
    @classmethod
    def _names_its_data(cls, identity: dict[str, Any] | None) -> dict[str, Any] | None:
        if identity is not None and "shards" not in identity:
            raise ValueError("it must name the shards")
        return identity


def read_run(path: Path) -> RunFile:
    """Read a run.json; ValueError when it is invalid."""
    return read_file(path, RunFile, REMEDY)
