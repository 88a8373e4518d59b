"""The options of commands that copy their output folder to an object store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from runtime.options.declaration import OUTPUT, Options, option
from runtime.stores.address import StoreAddress, parse_address, without_secrets

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


def upload_problems(upload: str | None, output_dir: str | None) -> list[str]:
    """What is wrong with --upload, and with an address as --output_dir."""
    if "://" in str(output_dir):
        try:
            _address_of(str(output_dir), upload)
        except ValueError as error:
            return [str(error)]
    if upload is None:
        return []
    if not upload.strip():
        return ["--upload is empty: name an address or a folder"]
    if "://" in upload:
        try:
            parse_address(upload)
        except ValueError as error:
            return [f"--upload: {error}"]
    elif output_dir:
        ours, theirs = Path(output_dir).resolve(), Path(upload).expanduser().resolve()
        if ours == theirs or ours in theirs.parents or theirs in ours.parents:
            return [f"--upload {upload} and --output_dir {output_dir} must not lie in each other: name another folder"]
    return []


def _address_of(output_dir: str, upload: str | None) -> StoreAddress:
    """The address that --output_dir is; ValueError for one that is refused, or beside another --upload."""
    try:
        address = parse_address(output_dir)
    except ValueError as error:
        raise ValueError(f"--output_dir: {error}") from error
    if upload not in (None, str(address)):
        raise ValueError(
            f"--output_dir {address} and --upload {without_secrets(str(upload))} are two places: name one of them"
        )
    return address


def in_local_folder(options: Chosen) -> Chosen:
    """The options with `--output_dir ADDRESS` taken apart: work in runs/BUCKET/PATH and upload to the address.

    ValueError for an address that is refused, or beside another --upload.
    """
    values: Any = options
    if "://" not in str(values.output_dir):
        return options
    address = _address_of(str(values.output_dir), values.upload)
    chosen: Chosen = replace(values, output_dir=str(FOLDER_OF_STORES / address.path), upload=str(address))
    return chosen
