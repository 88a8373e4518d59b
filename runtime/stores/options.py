"""The options of commands that copy their output folder to an object store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from runtime.options.declaration import OUTPUT, Options, option
from runtime.stores.address import parse_address

Chosen = TypeVar("Chosen")
FOLDER_OF_STORES = Path("runs")


@dataclass(frozen=True, kw_only=True)
class UploadOptions(Options):
    """Declared once, for several commands."""

    upload: str | None = option(
        None,
        "s3:// or gs:// address, or folder on another disk, to which the output is copied while it is made",
        group=OUTPUT,
        identity=False,
    )
    upload_wait_minutes: float = option(
        10.0,
        "minutes that the end, or a request to stop, waits for uploads",
        group=OUTPUT,
        at_least=0,
        at_most=25,  # the other ranks wait meanwhile, for half an hour at most
        identity=False,
    )


def upload_problems(upload: str | None) -> list[str]:
    """What is wrong with the value of --upload."""
    if upload is None or "://" not in upload:
        return ["--upload is empty: name an address or a folder"] if upload is not None and not upload.strip() else []
    try:
        parse_address(upload)
    except ValueError as error:
        return [f"--upload: {error}"]
    return []


def in_local_folder(options: Chosen) -> Chosen:
    """The options with `--output_dir ADDRESS` taken apart: work in runs/BUCKET/PATH and upload to the address.

    ValueError for an address that is refused, or beside another --upload.
    """
    values: Any = options
    if "://" not in str(values.output_dir):
        return options
    address = parse_address(str(values.output_dir))
    if values.upload not in (None, str(address)):
        raise ValueError(f"--output_dir {address} and --upload {values.upload} are two addresses: give one")
    chosen: Chosen = replace(values, output_dir=str(FOLDER_OF_STORES / address.path), upload=str(address))
    return chosen
