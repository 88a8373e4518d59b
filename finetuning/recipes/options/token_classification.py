"""The options of token classification."""

from __future__ import annotations

from dataclasses import dataclass

from finetuning.examples.recipe import COLUMN, KEPT, SMALL_WORLD, SPLIT_FILE, FinetuningOptions
from finetuning.recipes.options.pushing import PushingOptions
from finetuning.recipes.options.qa import QAOptions
from finetuning.recipes.tokens.tagged_files import CONLLU, has_columns
from runtime.options.declaration import DATA, names_marked, option, option_as_in
from runtime.options.option_rules import idle_beside, idle_without, named_twice
from shards.text.sources import name_suffix


@dataclass
class TokenOptions(PushingOptions, FinetuningOptions):
    """Options of token classification."""

    max_seq_length: int = option_as_in(
        128, FinetuningOptions, "max_seq_length", by_data={SMALL_WORLD: 64}, marks=(KEPT,)
    )
    doc_stride: int = option_as_in(
        32, QAOptions, "doc_stride", "overlap of neighbouring windows over a long sentence in tokens", marks=(KEPT,)
    )
    tag_column: str | None = option(
        None,
        "CoNLL-U: upos or xpos; rows: the column of the tags; default: upos, or the usual names",
        group=DATA,
        marks=(COLUMN, KEPT),
    )

    def contradictions(self) -> list[str]:
        """Also refuses data named in two ways, and a column of tags for files whose last column has the tags."""
        files = [getattr(self, name) for name in names_marked(self, SPLIT_FILE) if getattr(self, name)]
        fixed = files and all(has_columns(file) and name_suffix(file) != CONLLU for file in files)
        data_named = f"{', '.join(files)}, where the tag is in the last column"
        return [
            *super().contradictions(),
            *named_twice(self, "dataset_name", names_marked(self, SPLIT_FILE)),
            *idle_without(self, "dataset_name", ("dataset_config_name",)),
            *(idle_beside(self, ("tag_column",), data_named) if fixed else []),
        ]
