"""Files of a folder in an object store, fetched in pieces that are repeated alone where a connection is cut."""

from pathlib import Path

from runtime.files.whole_files import whole_file
from runtime.stores.store import Store, StoreError
from shards.storage.manifest import Shard


class StoreFolder:
    """The files below one s3 or gs address."""

    def __init__(self, address: str) -> None:
        """ValueError if the library for this store is not installed."""
        self.store = Store(address)

    def fetch_small(self, name: str, path: Path, limit: int) -> bool:
        """Fetch a file of at most `limit` bytes; False if there is none. ConnectionError if it cannot be read."""
        try:
            content = self.store.read(name, limit)
        except StoreError as error:
            raise ConnectionError(str(error)) from error
        if content is None:
            return False
        with whole_file(path) as file:
            file.write(content)
        return True

    def fetch_shard(self, shard: Shard, path: Path) -> None:
        """Fetch a shard; OSError if it cannot be read, ValueError if it is not there or not as the manifest says."""
        try:
            self.store.download(shard.name, path, num_bytes=shard.num_bytes, sha256=shard.sha256)
        except FileNotFoundError as error:
            raise ValueError(f"{self.store}/{shard.name} is missing: upload the shards again") from error

    def problems(self, shards: list[Shard]) -> list[str]:
        """What is wrong with the size of each shard, by one listing of the folder."""
        sizes = self.store.sizes() if shards else {}
        return [
            f"{shard.name}: " + (f"{size} bytes, {shard.num_bytes} expected" if size is not None else "missing")
            for shard in shards
            if (size := sizes.get(shard.name)) != shard.num_bytes
        ]
