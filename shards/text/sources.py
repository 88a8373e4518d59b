"""Where text comes from: files, folders, globs and datasets, in a fixed order, with their formats."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.text.compression import unpacked
from shards.text.formats import HEAD_BYTES, SUFFIX_FORMATS, is_wiki_dump, name_suffix

SAVED_DATASET_FILES = ("dataset_dict.json", "state.json")
DUMP_INDEX = "-multistream-index"  # of a wiki dump: the places of its pages, no text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One input: a file, a saved dataset or the name of one. `bytes` is its size on disk, 0 where unknown."""

    name: str
    path: str
    bytes: int
    modified_nanoseconds: int = 0
    dataset: bool = False


def find_sources(inputs: Sequence[str], leave_out: Path | None = None) -> list[Source]:
    """Resolve inputs to sources: in the order given, a folder or glob sorted by path, without what is in `leave_out`.

    Raises ValueError for an input that matches nothing.
    """
    sources: list[Source] = []
    for name in inputs:
        matches = [source for source in resolve(name) if source.dataset or not lies_in(Path(source.path), leave_out)]
        if not matches:
            raise ValueError(f"--input {name} matches no readable file: check the path and the file names")
        sources.extend(matches)
    return sources


def lies_in(path: Path, folder: Path | None) -> bool:
    """Whether a path is in a folder, at any depth; symbolic links are followed."""
    return folder is not None and folder.resolve() in path.resolve().parents


def resolve(name: str) -> Iterator[Source]:
    """The sources of one input."""
    path = Path(name)
    if name.startswith("datasets:"):
        yield Source(name=name, path=name.removeprefix("datasets:"), bytes=0, dataset=True)
    elif path.is_file():
        yield file_source(path, path.name)
    elif path.is_dir():
        yield from folder_sources(path)
    elif glob.has_magic(name):
        yield from glob_sources(name)
    elif path.exists() or "://" in name or name.startswith("pipe:"):
        raise ValueError(
            f"--input {name} is neither a file nor a folder: write its content to a file, and name that file"
        )
    else:
        raise ValueError(f"--input {name}: no such file or folder; for a dataset on the hub, write datasets:{name}")


def glob_sources(pattern: str) -> Iterator[Source]:
    """What a glob matches: files, and folders whole unless the glob matches files in them too, as `**` does."""
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    paths = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    matches = [match for match in paths if not is_circular(match, fixed)]
    around = {folder for match in matches if match.is_file() for folder in match.parents}
    read: set[Path] = set()
    for match in matches:
        if match.is_file() and DUMP_INDEX in match.name:
            warn_of_index(match)
        elif match.is_file():
            yield file_source(match, match.name)
        elif leads_nowhere(match):
            warn_of_dangling(match)
        elif match.is_dir() and match not in around and not read.intersection(match.parents):
            read.add(match)
            yield from folder_sources(match)


def folder_sources(folder: Path) -> Iterator[Source]:
    """All files of a folder whose names have a known format; hidden ones are skipped, others with a warning.

    Names that begin with an underscore are no data either, as Hive, Spark and Arrow have it.
    """
    if any((folder / file).is_file() for file in SAVED_DATASET_FILES):
        size = sum(file.stat().st_size for file in files_below(folder) if file.suffix == ".arrow")
        yield Source(name=folder.name, path=str(folder), bytes=size, dataset=True)
        return
    for path in files_below(folder):
        relative = path.relative_to(folder)
        suffix = name_suffix(path.name)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if any(part.startswith("_") for part in relative.parts):
            if suffix:  # not _SUCCESS or _metadata
                logger.warning("%s is skipped: names that begin with _ are no data (give it as an input itself)", path)
        elif suffix not in SUFFIX_FORMATS or (suffix == ".xml" and path.is_file() and is_other_xml(path)):
            logger.warning("%s is skipped: its suffix has no reader", path)
        elif DUMP_INDEX in path.name:
            warn_of_index(path)
        elif path.is_file():
            yield file_source(path, relative.as_posix())
        elif leads_nowhere(path):
            warn_of_dangling(path)
        else:
            logger.warning("%s is skipped: it is neither a file nor a folder", path)


def is_other_xml(path: Path) -> bool:
    """Whether a file is XML, but no wiki dump; one that cannot be unpacked is for its reader to refuse."""
    try:
        with unpacked(path) as (_, stream):
            return not is_wiki_dump(stream.peek(HEAD_BYTES)[:HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip())
    except ValueError:
        return False


def files_below(folder: Path) -> list[Path]:
    """All that is in a folder, at any depth, except folders, sorted by path; folders that are links are followed.

    A link that leads back to a folder around it is left out with a warning. Raises ValueError for a folder that cannot
    be read.
    """
    files: list[Path] = []
    waiting: list[tuple[Path, tuple[str, ...]]] = [(folder, tuple(map(os.path.realpath, (*folder.parents, folder))))]
    while waiting:
        inside, around = waiting.pop()
        try:
            paths = list(inside.iterdir())
        except OSError as error:
            raise ValueError(
                f"the folder {inside} cannot be read ({error}): check its permissions, or leave it out"
            ) from error
        for path in paths:
            if not path.is_dir():
                files.append(path)
            elif (real := os.path.realpath(path)) in around:
                logger.warning("the link %s is skipped: it leads back to a folder around it", path)
            else:
                waiting.append((path, (*around, real)))
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def is_circular(path: Path, fixed: int) -> bool:
    """Whether a path, beyond its first `fixed` parts, passes a folder twice, through a link that leads back to it."""
    folders = [os.path.realpath(folder) for folder in list(path.parents)[: max(0, len(path.parts) - fixed)]]
    return len(set(folders)) < len(folders)


def leads_nowhere(path: Path) -> bool:
    """Whether a path is a link to a file or folder that is not there."""
    return path.is_symlink() and not path.exists()


def warn_of_dangling(path: Path) -> None:
    """Warn that a link is left out."""
    logger.warning("%s is skipped: it is a link to %s, which is not there", path, os.readlink(path))


def warn_of_index(path: Path) -> None:
    """Warn that an index is left out."""
    logger.warning("%s is skipped: it is the index of a wiki dump, which has no text", path)


def file_source(path: Path, name: str) -> Source:
    """A file as a source."""
    status = path.stat()
    return Source(name=name, path=str(path), bytes=status.st_size, modified_nanoseconds=status.st_mtime_ns)
