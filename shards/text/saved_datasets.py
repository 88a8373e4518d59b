"""Data sets of `datasets`: saved folders, which may be damaged, and names on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.files.foreign import reading_foreign
from shards.text.records import top_column
from shards.text.sources import SAVED_DATASET_FILES, Source

BATCH_ROWS = 256
DAMAGED = "save it again with save_to_disk, or copy it again"


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote it."""
    return any((folder / file).is_file() for file in SAVED_DATASET_FILES)


def load_saved(folder: Path) -> Any:
    """What `save_to_disk` wrote: a `Dataset`, or a `DatasetDict` with several splits; ValueError if it is damaged."""
    import datasets

    with reading_foreign(str(folder), DAMAGED):
        return datasets.load_from_disk(str(folder))


def open_dataset(source: Source, column: str) -> tuple[Any, int]:
    """One column of a saved dataset (its `train` split where it has several) or of a stream `NAME[:CONFIG[:SPLIT]]`.

    Returns the rows and their number, 0 if unknown. No other column is read; of a stream, where its files are parquet.
    Raises ValueError where there is no such column.
    """
    import datasets

    if Path(source.path).is_dir() and not source.name.startswith("datasets:"):
        saved = load_saved(Path(source.path))
        if isinstance(saved, datasets.DatasetDict):
            if "train" not in saved:
                raise ValueError(
                    f"{source.path} has the splits {sorted(saved)} and no 'train': give one split's folder"
                )
            saved = saved["train"]
        top = top_column(saved.column_names, column, source.name)
        return saved.select_columns([top]).with_format("arrow"), len(saved)
    rows = streamed(source.path)
    if rows.column_names is None:  # known only from the rows
        return rows, 0
    top = top_column(rows.column_names, column, source.name)
    if rows.info.builder_name == "parquet":
        return streamed(source.path, columns=[top]), 0
    return rows.select_columns([top]), 0


def streamed(path: str, **columns: Any) -> Any:
    """The rows of `NAME[:CONFIG[:SPLIT]]`, or of a folder of files, as they arrive; ValueError if there are none."""
    import datasets

    name, config, split = [*path.split(":"), "", ""][:3]
    try:
        return datasets.load_dataset(name, config or None, split=split or "train", streaming=True, **columns)
    except (OSError, ValueError) as error:
        raise ValueError(f"dataset {name} cannot be streamed ({error}): check its name, or give local files") from error


def rows_of(rows: Any, source: Source) -> Iterator[dict[str, Any]]:
    """The rows that `open_dataset` gave; ValueError where a saved one is damaged."""
    if not hasattr(rows, "data"):  # streamed
        yield from rows
        return
    batches = rows.iter(batch_size=BATCH_ROWS)
    while True:
        with reading_foreign(source.path, DAMAGED):
            batch = next(batches, None)
            if batch is None:
                return
            batch.validate(full=True)  # Arrow itself trusts its offsets, and reads beyond the file
            values = batch.to_pylist()
        yield from values


def rows_in(dataset: Any, name: str) -> list[dict[str, Any]]:
    """All rows of a `Dataset`; ValueError that says its `name` where its files are damaged."""
    with reading_foreign(name, DAMAGED):
        dataset.data.validate(full=True)
        return list(dataset.to_list())
