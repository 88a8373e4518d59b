"""The check of a shard directory against its manifest."""

from pathlib import Path
from typing import Literal

from runtime.files.whole_files import sha256_of
from shards.storage.manifest import REBUILD, Manifest, Shard

Verify = Literal["sizes", "full"]


def check_shards(
    directory: Path, manifest: Manifest, verify: Verify = "sizes", share: tuple[int, int] = (0, 1)
) -> None:
    """List, in one ValueError, every shard that is missing, empty, of the wrong size, a web page, extra or renamed.

    `verify="full"` also reads every shard and compares its sha256; "sizes" only looks at the directory. `share`
    (number, of how many) looks at every n-th shard only, so that processes can divide the work; the first also looks
    for extra files.
    """
    if verify not in ("sizes", "full"):
        raise ValueError(f"verify {verify!r}: use 'sizes' or 'full'")
    directory = Path(directory)
    shards = shards_of(manifest)
    number, of_how_many = share
    problems = []
    for shard in shards[number::of_how_many]:
        if problem := _problem(directory / shard.name, shard, verify):
            problems.append(f"{shard.name}: {problem}")
    known = {shard.name for shard in shards}
    # A name that begins with a dot is a shard being written or fetched, or one that a killed process left unfinished.
    named = {path.name: path for path in directory.glob("*.tar*") if not path.name.startswith(".")}
    extra = {} if number else {name: path for name, path in named.items() if name not in known}
    missing = {shard.num_bytes: shard.name for shard in shards if extra and not (directory / shard.name).is_file()}
    for name, path in sorted(extra.items()):
        was = missing.get(path.stat().st_size) if path.is_file() else None
        problems.append(f"{name}: not in the manifest" + (f", perhaps {was} renamed" if was else ""))
    if problems:
        listed = "\n  ".join(problems)
        raise ValueError(f"{directory}: {len(problems)} shards do not match the manifest; {REBUILD}:\n  {listed}")


def _problem(path: Path, shard: Shard, verify: str) -> str | None:
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    if size == 0:
        return f"empty, {shard.num_bytes} bytes expected"
    if size != shard.num_bytes:
        with open(path, "rb") as stream:
            start = stream.read(64).lstrip().lower()
        page = " (an HTML page)" if start.startswith((b"<!doctype", b"<html")) else ""
        return f"{size} bytes{page}, {shard.num_bytes} expected"
    if verify == "full" and sha256_of(path) != shard.sha256:
        return "its sha256 differs, so its content is damaged"
    return None


def shards_of(manifest: Manifest) -> list[Shard]:
    """All shards, in manifest order."""
    return [shard for split in manifest.splits.values() for shard in split.shards]
