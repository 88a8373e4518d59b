"""Rows of a `datasets` data set, by name or from a saved directory, with label numbers turned into names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from finetuning.examples.label_cells import numbered
from finetuning.examples.record_files import Record
from runtime.files.foreign import reason_of
from runtime.hub import hub_is_reachable, is_missing_path
from shards.text.saved_datasets import is_saved, load_saved, rows_in

Example = TypeVar("Example")


def subset(examples: Sequence[Example], limit: int | None, id_of: Callable[[Example], str]) -> list[Example]:
    """At most `limit` examples, in file order, chosen by a hash of their ids: files are often sorted by label or topic.

    No seed is used: smaller subsets are parts of larger ones.
    """
    if limit is None or limit >= len(examples):
        return list(examples)
    ranked = sorted(map(id_of, examples), key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen = set(ranked[:limit])
    return [example for example in examples if id_of(example) in chosen]


SAVE_IT = "save the set with save_to_disk on a machine with a network"


def read_dataset(
    name: str,
    configuration: str | None = None,
    *,
    class_names: bool = True,
    asked: str | None = None,
    remedy: str = f"name files with --train_file, or {SAVE_IT}",
) -> dict[str, list[Record]]:
    """Split -> rows. A saved directory (`save_to_disk`) is read as it is; a name is looked up in the cache or the hub.

    With `class_names`, class numbers become names, and -1, which marks a hidden label, becomes None. Code that comes
    with a data set is never run. Raises ValueError for a number that no class has, and for a set that does not exist:
    `asked` is what the user wrote, `remedy` what the command accepts without a network.
    """
    from datasets import Dataset, DatasetDict, config, load_dataset

    where, asked = Path(name), asked or f"--dataset_name {name}"
    if not where.exists():
        if is_missing_path(name):
            raise ValueError(f"{asked}: no such directory; name a saved data set or one of the hub")
        if not hub_is_reachable():
            config.HF_HUB_OFFLINE = True  # the cache alone, without the client's retries
    try:
        loaded: Any = load_saved(where) if is_saved(where) else load_dataset(name, configuration)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{asked}: not a saved data set, and neither the cache nor the hub has it ({reason_of(error)}); {remedy}"
        ) from error
    if isinstance(loaded, Dataset):
        loaded = DatasetDict({"train": loaded})
    return {
        str(split): _named(rows, f"{asked} {split}") if class_names else rows_in(rows, asked)
        for split, rows in loaded.items()
    }


def _named(dataset: Any, source: str) -> list[Record]:
    names: dict[str, list[str]] = {}
    for column, feature in dataset.features.items():
        inner: Any = (
            feature if hasattr(feature, "int2str") else getattr(feature, "feature", None)
        )  # of a list: its entries
        if hasattr(inner, "int2str"):
            names[column] = inner.names
    rows = rows_in(dataset, source)
    for column, labels in names.items():
        for place, row in enumerate(rows):
            where = f"{source}, row {place}: {column}"
            value = row[column]
            many = isinstance(value, list)
            row[column] = [_name(item, labels, where) for item in value] if many else _name(value, labels, where)
    return rows


def _name(number: int | None, labels: Sequence[str], where: str) -> str | None:
    if number is not None and number >= len(labels):
        raise ValueError(f"{where} is {number}, but {numbered(labels)}; correct the set")
    return None if number is None or number < 0 else labels[number]
