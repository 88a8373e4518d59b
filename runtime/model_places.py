"""Models that lie elsewhere: a folder of an object store, or a branch of the hub (OWNER/NAME@REVISION).

They are fetched once into a folder of the cache that is named by their content, and verified. Every process that reads
a model asks here for its folder; of the processes of a machine one fetches it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub.errors import RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from runtime.files.schemas import listed
from runtime.files.whole_files import sha256_of, whole_file
from runtime.hub import hub_is_reachable, is_missing_path, is_repository_name
from runtime.hub_repository import HubRepository, NotPushed, is_same, said_plainly, sha256_there, with_patience
from runtime.plurals import counted
from runtime.stores.address import is_store_address, parse_address
from runtime.stores.cache import cache_folder, one_at_a_time
from runtime.stores.folders import LARGEST_MANIFEST_BYTES, MANIFEST_NAME, manifest_of, parse_manifest
from runtime.stores.store import NoAccess, Store

READ = ("*.json", "*.safetensors", "*.txt", "*.model")  # of a model: nothing that could run code
CONFIG, RUN, SERIES = "config.json", "run.json", "series"
LARGEST_RUN_BYTES = 64 << 20
MB = 10**6
MOST_BRANCHES = 40
_ANSWERS: dict[tuple[str, str], Path | Exception] = {}  # by name and cache


class NotFetched(OSError):
    """A model that the hub broke off to deliver: the same command may succeed later."""


@dataclass(frozen=True)
class _Source:
    """A model elsewhere: the name of its content, its files with their sizes, and how to get one, verified."""

    content: str
    files: Mapping[str, int]
    get: Callable[[str, Path], None]
    sha256: Mapping[str, str]  # as far as it is known


def is_elsewhere(name: str) -> bool:
    """Whether a model's name is an address or OWNER/NAME@REVISION, and no path: a folder may have an @ in its name."""
    if is_store_address(name):
        return True
    repository, at, revision = name.partition("@")
    if not (at and revision) or Path(name).expanduser().exists() or is_missing_path(repository):
        return False
    return is_repository_name(repository)


def model_place(name: str, option: str = "") -> str:
    """The folder of a model that lies elsewhere, fetched if need be; another name, or a path, is given back.

    In one call of a command the first answer holds, a failure too, whatever changes there meanwhile. Raises ValueError,
    naming the `option`, where there is no such model, it may not be read, or it is damaged; OSError where the network
    fails.
    """
    if not is_elsewhere(name):
        return name
    key = name, str(cache_folder())
    if key not in _ANSWERS:
        try:
            _ANSWERS[key] = _fetched(name)
        except (OSError, ValueError) as error:
            _ANSWERS[key] = error
    answer = _ANSWERS[key]
    if isinstance(answer, Path):
        return str(answer)
    if isinstance(answer, ValueError):
        raise ValueError(f"{option} {answer}".strip()) from answer
    if isinstance(answer, NoAccess):
        raise ValueError(f"{option} {name}: {answer}".strip()) from answer
    raise answer


def forget_places() -> None:
    """Ask anew from now on: each call of a command does so once."""
    _ANSWERS.clear()


def _fetched(name: str) -> Path:
    places = cache_folder() / "models" / hashlib.sha256(name.rstrip("/").encode()).hexdigest()[:16]
    if is_store_address(name):
        source = _in_store(name)
    elif hub_is_reachable():
        source = _on_hub(name)
    else:
        return _fetched_before(name, places)
    folder = places / source.content
    if not _is_whole(folder):
        with one_at_a_time(folder):
            if not _is_whole(folder):
                _fetch(name, source, folder)
    with suppress(OSError):  # another user's
        os.utime(folder)  # the one used last is taken where the hub cannot be asked
    return folder


def _fetched_before(name: str, places: Path) -> Path:
    """What was last used of a branch, where the hub cannot be asked. ValueError if there is nothing."""
    there = [path for path in places.glob("[!.]*") if _is_whole(path)]
    if not there:
        raise ValueError(
            f"{name}: there is no such path here, it was not fetched before, and the hub cannot be reached "
            "(HF_HUB_OFFLINE, or no network): name a folder, or run this once with a network"
        )
    return max(there, key=lambda path: path.stat().st_mtime)


def _is_whole(folder: Path) -> bool:
    """Whether a folder of the cache has every file of its manifest with its sha256."""
    try:
        content = (folder / MANIFEST_NAME).read_bytes()
        files = parse_manifest(content, str(folder / MANIFEST_NAME)).files
        return all(sha256_of(folder / file.name) == file.sha256 for file in files)
    except (OSError, ValueError):
        return False


def _fetch(name: str, source: _Source, folder: Path) -> None:
    """Fetch into a hidden folder beside, in which a killed fetch goes on, and give it its name once all is there."""
    megabytes = sum(source.files.values()) / MB
    print(f"fetching {name} ({counted(len(source.files), 'file')}, {megabytes:,.1f} MB)", file=sys.stderr, flush=True)
    partial = folder.with_name(f".{folder.name}.partial")
    (partial / MANIFEST_NAME).unlink(missing_ok=True)
    partial.mkdir(parents=True, exist_ok=True)
    for name_there in source.files:
        known, path = source.sha256.get(name_there), partial / name_there
        if known is None or not path.is_file() or sha256_of(path) != known:
            source.get(name_there, partial)
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path)  # the hub's client keeps notes in it
        elif path.name not in source.files:
            path.unlink()
    content = manifest_of(partial)
    with whole_file(partial / MANIFEST_NAME) as file:
        file.write(content)
    shutil.rmtree(folder, ignore_errors=True)  # damaged
    os.replace(partial, folder)


def _chosen(files: Mapping[str, int]) -> dict[str, int]:
    """Those right in the folder that a model is read from."""
    return {
        name: size
        for name, size in sorted(files.items())
        if "/" not in name and any(fnmatch(name, pattern) for pattern in READ)
    }


# In a store.


def _in_store(name: str) -> _Source:
    address = parse_address(name)
    store = Store(address)
    versions = store.versions()
    sizes = {file: version.size for file, version in versions.items()}
    if CONFIG not in sizes:
        raise ValueError(f"{address} {_lacking(store, sizes)}")
    sha256: dict[str, str] = {}
    if MANIFEST_NAME in sizes:
        content = store.read(MANIFEST_NAME, LARGEST_MANIFEST_BYTES) or b""
        manifest = parse_manifest(content, f"{address}/{MANIFEST_NAME}").files
        sha256 = {file.name: file.sha256 for file in manifest}
        files = _chosen({file.name: file.bytes for file in manifest})
    else:
        _refuse_unfinished(address.path, name)
        files = _chosen(sizes)
        content = repr([(file, versions[file]) for file in files]).encode()

    def get(file: str, folder: Path) -> None:
        try:
            store.download(file, folder / file, num_bytes=files[file], sha256=sha256.get(file))
        except FileNotFoundError as error:
            raise ValueError(f"{address}/{file} is missing: upload the folder again") from error

    return _Source(hashlib.sha256(content).hexdigest()[:16], files, get, sha256)


def _lacking(store: Store, sizes: Mapping[str, int]) -> str:
    """What is wrong with an address without a configuration, and which models are near it."""
    if not sizes:
        folder = str(store).rpartition("/")[0]
        there = _models_in(Store(folder).sizes()) if folder.endswith(f"/{SERIES}") else []
        return "does not exist: check the address" + (f"; in {folder} there are {listed(there)}" if there else "")
    if there := _models_in(sizes):
        return f"is no checkpoint: it has no {CONFIG}; add the name of one that it holds: {listed(there)}"
    return (
        f"is no checkpoint: it has no {CONFIG} but {listed(sorted(sizes))}; name a folder that save_pretrained wrote, "
        f"such as RUN/{SERIES}/annealed-1000000"
    )


def _models_in(sizes: Mapping[str, int]) -> list[str]:
    return sorted(name.removesuffix(f"/{CONFIG}") for name in sizes if name.endswith(f"/{CONFIG}"))


def _refuse_unfinished(path: str, name: str) -> None:
    """ValueError for a checkpoint of a run that --upload keeps, whose manifest is not there: it is written last."""
    run, _, series = path.rpartition("/")[0].rpartition("/")
    if series != SERIES or not run:
        return
    with suppress(NoAccess):  # rights for this folder alone
        beside = Store(f"{name.partition('://')[0]}://{run}").read(RUN, LARGEST_RUN_BYTES)
        if beside is None:
            return
        raise ValueError(
            f"{name} has no {MANIFEST_NAME}, which is uploaded last: its upload is not finished; wait for the run, or "
            "start it again"
        )


# On the hub.


def _on_hub(name: str) -> _Source:
    repository_name, _, revision = name.partition("@")
    repository = HubRepository(repository_name)
    try:
        with said_plainly(repository_name):
            commit = str(with_patience(lambda: repository.api.model_info(repository_name, revision=revision).sha))
            there = {file: entry for file, entry in repository.files(commit).items() if "/" not in file}
    except ValueError as error:
        if isinstance(error.__cause__, RevisionNotFoundError):
            raise ValueError(_no_revision(repository, revision)) from error
        raise ValueError(f"{name}: {error}") from error
    except NotPushed as error:
        raise NotFetched(_broken_off(name, error)) from error
    files = _chosen({file: entry.size for file, entry in there.items()})
    if CONFIG not in files:
        raise ValueError(
            f"{name} is no checkpoint: it has no {CONFIG} but {listed(sorted(there))}; name another revision"
        )
    sha256 = {file: digest for file in files if (digest := sha256_there(there[file]))}

    def get(file: str, folder: Path) -> None:
        _get_from_hub(repository, name, commit, there[file], folder)

    return _Source(commit[:16], files, get, sha256)


def _get_from_hub(repository: HubRepository, name: str, commit: str, entry: RepoFile, folder: Path) -> None:
    """Fetch one file, which the client goes on with where it broke off. ValueError where it is not what is listed."""
    try:
        with said_plainly(repository.name):
            with_patience(
                lambda: repository.api.hf_hub_download(repository.name, entry.path, revision=commit, local_dir=folder)
            )
    except NotPushed as error:
        raise NotFetched(_broken_off(name, error)) from error
    if not is_same(entry, folder / entry.path):
        (folder / entry.path).unlink()
        raise ValueError(f"{name}: {entry.path} is not the file that the hub lists: run the same command again")


def _broken_off(name: str, error: Exception) -> str:
    cause = error.__cause__ or error
    return (
        f"{name} was not fetched ({str(cause).splitlines()[0] if str(cause) else type(cause).__name__}): check the "
        "network, and run the same command again, which goes on where it stopped"
    )


def _no_revision(repository: HubRepository, revision: str) -> str:
    branches = repository.branches()
    shown = branches if len(branches) <= MOST_BRANCHES else [*branches[:MOST_BRANCHES], "..."]
    return f"{repository.name}@{revision}: there is no such branch or commit; there are {', '.join(shown)}"
