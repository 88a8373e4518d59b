"""The order of rows: pure functions of integers, so that one number is a stream's whole state."""

import numpy as np

from shards.streaming.splitmix import key, keys

MAX_LANES = 256
WINDOW_ROWS = 256
_SHARDS, _BLOCKS, _WINDOWS = 1, 2, 3


def lanes_for(global_batch_rows: int) -> int:
    """The number of lanes of a global batch: its largest divisor up to 256, whatever the world size."""
    if global_batch_rows < 1:
        raise ValueError(f"global_batch_rows {global_batch_rows}: use at least 1")
    return max(lanes for lanes in range(1, min(MAX_LANES, global_batch_rows) + 1) if global_batch_rows % lanes == 0)


def lanes_of(rank: int, world_size: int, num_lanes: int) -> range:
    """The lanes that a rank reads: contiguous; the first ranks get one more if they do not divide evenly."""
    if world_size > MAX_LANES:
        raise ValueError(
            f"{world_size} ranks: an update has at most {MAX_LANES} lanes and a rank needs one, so at most {MAX_LANES} "
            "ranks; use fewer ranks, each with a larger per_device_train_batch_size"
        )
    if world_size > num_lanes:
        raise ValueError(
            f"{world_size} ranks for {num_lanes} lanes: a rank needs a lane; use a global_batch_rows with a divisor of "
            f"{world_size} to {MAX_LANES} (a multiple of {world_size}), or at most {num_lanes} ranks"
        )
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of {world_size}: ranks count from 0 to {world_size - 1}")
    share, rest = divmod(num_lanes, world_size)
    first = rank * share + min(rank, rest)
    return range(first, first + share + (rank < rest))


def rows_per_rank(world_size: int, num_lanes: int, global_batch_rows: int) -> int:
    """Rows of one update on each rank, including padding rows if the lanes do not divide evenly."""
    return -(-num_lanes // world_size) * (global_batch_rows // num_lanes)


class Order:
    """Which stored row is global row g: each row once per epoch, independent of ranks, workers and micro-batches.

    Row g belongs to epoch g // N and lane g % L (N rows per epoch, L lanes). Per epoch the shards, and the blocks in
    each, are shuffled; their rows are cut into one contiguous range per lane, and a lane shuffles inside its range in
    windows. Shards stay together, so that a lane opens (and hashes) one after another instead of all of them at once.
    Its only mutable state are caches, so results do not depend on earlier calls.
    """

    def __init__(
        self,
        rows_per_block: np.ndarray,
        seed: int,
        num_lanes: int,
        *,
        blocks_per_shard: np.ndarray | None = None,
        window_rows: int = WINDOW_ROWS,
    ) -> None:
        """`rows_per_block` int [num_blocks]; `blocks_per_shard` int [num_shards], one shard when left out."""
        self.rows_per_block = np.asarray(rows_per_block, dtype=np.int64)
        counts = np.array([len(self.rows_per_block)]) if blocks_per_shard is None else np.asarray(blocks_per_shard)
        self.rows_per_epoch = int(self.rows_per_block.sum())
        if self.rows_per_epoch < 1:
            raise ValueError("no rows: the split is empty; build shards from more text")
        if num_lanes < 1 or window_rows < 1 or counts.sum() != len(self.rows_per_block):
            raise ValueError(f"{num_lanes} lanes, windows of {window_rows} rows and {counts.sum()} blocks do not fit")
        self.num_lanes = num_lanes
        self.window_rows = window_rows
        self._seed = seed
        self._shard_of_block = np.repeat(np.arange(len(counts)), counts)
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = {}
        self._windows: dict[tuple[int, int, int], np.ndarray] = {}

    def locate(self, first_row: int, count: int, lanes: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows of `lanes` among global rows [first_row, first_row + count), ascending.

        Returns three int64 arrays [num_rows]: global row number, block (in manifest order), row inside the block.
        """
        starts = np.arange(first_row // self.num_lanes, -(-(first_row + count) // self.num_lanes)) * self.num_lanes
        rows = (starts[:, None] + np.arange(lanes.start, lanes.stop)).reshape(-1)
        rows = rows[(rows >= first_row) & (rows < first_row + count)]
        blocks, rows_in_block = self.places(rows)
        return rows, blocks, rows_in_block

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Block and row inside the block of any global rows int64 [num_rows]; two int64 arrays of that shape."""
        epochs = rows // self.rows_per_epoch
        blocks, rows_in_block = np.empty_like(rows), np.empty_like(rows)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            blocks[chosen], rows_in_block[chosen] = self._places_in_epoch(epoch, rows[chosen])
        return blocks, rows_in_block

    def _places_in_epoch(self, epoch: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        permutation, block_starts, lane_starts, lane_rows = self._epoch(epoch)
        lanes = rows % self.num_lanes
        index = self._rows_before(rows, lanes) - self._rows_before(epoch * self.rows_per_epoch, lanes)
        windows, inside = np.divmod(index, self.window_rows)
        shuffled = self._shuffle(epoch, lanes, windows, inside, lane_rows)
        place = lane_starts[lanes] + windows * self.window_rows + shuffled
        slot = np.searchsorted(block_starts, place, side="right") - 1
        return permutation[slot], place - block_starts[slot]

    def _rows_before(self, row: int | np.ndarray, lanes: np.ndarray) -> np.ndarray:
        return (row - lanes + self.num_lanes - 1) // self.num_lanes

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if epoch not in self._epochs:
            num_blocks = len(self.rows_per_block)
            shard_keys = keys(key(self._seed, epoch, _SHARDS), np.arange(self._shard_of_block[-1] + 1))
            block_keys = keys(key(self._seed, epoch, _BLOCKS), np.arange(num_blocks))
            permutation = np.lexsort((block_keys, shard_keys[self._shard_of_block]))
            ends = np.cumsum(self.rows_per_block[permutation])
            lanes = np.arange(self.num_lanes)
            first = epoch * self.rows_per_epoch
            lane_rows = self._rows_before(first + self.rows_per_epoch, lanes) - self._rows_before(first, lanes)
            while len(self._epochs) >= 2:
                self._epochs.pop(next(iter(self._epochs)))
            block_starts = ends - self.rows_per_block[permutation]
            self._epochs[epoch] = permutation, block_starts, np.cumsum(lane_rows) - lane_rows, lane_rows
        return self._epochs[epoch]

    def _shuffle(
        self, epoch: int, lanes: np.ndarray, windows: np.ndarray, inside: np.ndarray, lane_rows: np.ndarray
    ) -> np.ndarray:
        pairs, which = np.unique(lanes + windows * self.num_lanes, return_inverse=True)
        wanted = [(epoch, pair % self.num_lanes, pair // self.num_lanes) for pair in pairs.tolist()]
        missing = [name for name in wanted if name not in self._windows]
        if missing:
            if len(self._windows) > 4 * MAX_LANES:
                self._windows = {name: self._windows[name] for name in wanted if name in self._windows}
            self._draw_windows(missing, lane_rows)
        table = np.stack([self._windows[name] for name in wanted])
        return table[which, inside]

    def _draw_windows(self, names: list[tuple[int, int, int]], lane_rows: np.ndarray) -> None:
        epoch = names[0][0]
        lanes, windows = np.array(names, dtype=np.int64)[:, 1:].T
        lengths = np.minimum(self.window_rows, lane_rows[lanes] - windows * self.window_rows)
        first = keys(keys(key(self._seed, epoch, _WINDOWS), lanes), windows)[:, None]
        columns = np.arange(self.window_rows)
        drawn = keys(first, columns[None, :])
        drawn[columns >= lengths[:, None]] = np.iinfo(np.uint64).max
        order = np.argsort(drawn, axis=1, kind="stable")
        self._windows.update(zip(names, order, strict=True))
