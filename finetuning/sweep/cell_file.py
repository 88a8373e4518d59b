"""`cell.json` of a sweep's cell: schema and reader."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from runtime.files.schemas import Name, Schema, read_file

CELL_NAME = "cell.json"
REMEDY = "remove the folder, and the sweep runs the cell again"


class CellFile(Schema):
    """cell.json: which cell the directory belongs to, and how it ended."""

    fingerprint: Name
    status: Literal["running", "interrupted", "finished", "failed"]
    pid: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    start: Name | None = None
    options: dict[str, Any] = {}  # noqa: RUF012


def read_record(directory: Path) -> CellFile | None:
    """cell.json, or None if it does not exist; ValueError for one that no sweep wrote."""
    path = directory / CELL_NAME
    return read_file(path, CellFile, REMEDY) if path.exists() else None
