"""A series from the hub as a local folder: series.json from main, and each checkpoint from its branch, verified."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub.errors import EntryNotFoundError

from pretraining.checkpoints.series import SCHEMA_VERSION, SERIES_NAME, read_series, run_named_in
from pretraining.publishing.hub_series import revision_of
from runtime.files.whole_files import write_json
from runtime.hub import hub_is_reachable, is_missing_path, require_repository
from runtime.hub_repository import HubRepository, is_same, said_plainly, with_patience
from runtime.model_places import READ


def local_series(series: str) -> str:
    """The value of --series with each name of the hub replaced by the folder that it was fetched into."""
    parts = [part.strip() for part in series.split(",") if part.strip()]
    return ",".join(part if is_local(part) else str(fetch_series(part)) for part in parts)


def is_local(name: str) -> bool:
    """Whether a name is a path, there or missing, and not OWNER/NAME on the hub."""
    if Path(name).exists() or is_missing_path(name) or name.endswith(".json"):
        return True
    try:
        require_repository(name)
    except ValueError:
        return True
    return False


def fetch_series(name: str, cache: Path | None = None) -> Path:
    """Fetch what `push_series` pushed to a repository, or what has changed since; the folder, as a run leaves it.

    `cache` is by default pretraining-gap in XDG_CACHE_HOME or ~/.cache. Without a network the folder is used as it is.
    Raises ValueError for a repository without a series, one that this account cannot read, or files that are damaged;
    NotPushed where the hub breaks off.
    """
    root = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pretraining-gap"
    folder = root / "series" / name.replace("/", "--")
    if not hub_is_reachable():
        if (folder / SERIES_NAME).is_file():
            return folder
        raise ValueError(
            f"--series {name}: there is no such path here, and the hub cannot be reached (HF_HUB_OFFLINE, or no "
            "network): name a series.json, or run this once with a network"
        )
    repository, main = HubRepository(name), folder / ".main"
    try:
        with said_plainly(name):
            fetched = with_patience(lambda: repository.api.hf_hub_download(name, SERIES_NAME, local_dir=main))
    except ValueError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            raise ValueError(
                f"--series {name}: main has no {SERIES_NAME}: push the series with launch/push.py, or name another"
            ) from error
        raise
    rows = [{**row, "path": str(Path(row["path"]).relative_to(main.resolve()))} for row in read_series(Path(fetched))]
    for row in rows:
        _fetch_checkpoint(repository, revision_of(row), folder / row["path"])
    run = run_named_in(Path(fetched))
    named = {} if run is None else {"run": run}
    write_json(folder / SERIES_NAME, {"schema_version": SCHEMA_VERSION, **named, "checkpoints": rows})
    return folder


def _fetch_checkpoint(repository: HubRepository, revision: str, place: Path) -> None:
    """Fetch one branch. ValueError for a file that is not what the hub lists."""
    name = repository.name
    with said_plainly(name):
        with_patience(
            lambda: repository.api.snapshot_download(
                name, revision=revision, local_dir=place, allow_patterns=list(READ)
            )
        )
    for file, there in repository.files(revision).items():
        if (place / file).is_file() and not is_same(there, place / file):
            raise ValueError(
                f"{place / file} is not the file of {name} at {revision}: delete {place} and fetch it again"
            )
