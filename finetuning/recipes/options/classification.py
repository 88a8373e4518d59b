"""The options of classification."""

from __future__ import annotations

from dataclasses import dataclass

from finetuning.examples.recipe import COLUMN, DATA_PLACE, KEPT, NAMES_DATA, PATH, SPLIT_FILE
from finetuning.recipes.options.texts import TextOptions
from finetuning.recipes.texts.labelled_text import Columns, has_no_columns
from runtime.options.declaration import DATA, TRAINING, names_marked, option, option_as_in
from runtime.options.option_rules import idle_beside, idle_without
from shards.building.options import BuildOptions

METRICS = ("accuracy", "macro_f1", "f1", "matthews_correlation")


@dataclass
class ClassificationOptions(TextOptions):
    """Options of this recipe; without any data option it runs on the embedded small world."""

    data: str | None = option(
        None,
        "folder or tar with the splits: SPLIT/LABEL/*.txt as in aclImdb, or SPLIT.csv",
        group=DATA,
        marks=(NAMES_DATA, DATA_PLACE, PATH),
    )
    validation_fraction: float = option(
        0.1,
        "share of train held out (copies together) if there is no validation set",
        group=DATA,
        above=0,
        below=1,
        what="a share such as 0.1",
    )
    text_column: str | None = option_as_in(
        None,
        BuildOptions,
        "text_column",
        "column of the text; default: the usual names",
        group=DATA,
        marks=(COLUMN, KEPT),
    )
    text_pair_column: str | None = option(None, "column of the second text", group=DATA, marks=(COLUMN, KEPT))
    label_column: str | None = option(None, "column of the label", group=DATA, marks=(COLUMN,))
    id_column: str | None = option(
        None, "column of the example's id; default: the row's number", group=DATA, marks=(COLUMN,)
    )
    selection_metric: str = option("accuracy", "metric that picks the best epoch", group=TRAINING, choices=METRICS)

    def contradictions(self) -> list[str]:
        """Also refuses data named twice and column options without effect."""
        problems = super().contradictions()
        files = [name for name in names_marked(self, SPLIT_FILE) if getattr(self, name)]
        ways = [name for name in ("data", "dataset_name") if getattr(self, name)]
        if len(ways) + bool(files) > 1:
            problems.append(f"{' and '.join(f'--{name}' for name in (*ways, *files))}: name the data one way only")
        problems += idle_without(self, "dataset_name", ("dataset_config_name",))
        places = [getattr(self, name) for name in ("data", *files) if getattr(self, name)]
        if places and all(map(has_no_columns, places)):
            data_named = f"{', '.join(places)}, where every text is a file"
            problems += idle_beside(self, names_marked(self, COLUMN), data_named)
        return problems

    @property
    def columns(self) -> Columns:
        """The four columns."""
        return Columns(self.text_column, self.text_pair_column, self.label_column, self.id_column)
