"""The options of GLUE."""

from __future__ import annotations

from dataclasses import dataclass

from finetuning.examples.recipe import DATA_PLACE, MODEL_PLACE, PATH, SPLIT_FILE
from finetuning.recipes.options.texts import TextOptions
from finetuning.recipes.texts.glue_tasks import GLUE_TASKS
from runtime.options.declaration import DATA, MODEL, names_marked, option
from runtime.options.option_rules import named_twice


@dataclass
class GlueOptions(TextOptions):
    """Options of GLUE."""

    task_name: str | None = option(
        None, f"{', '.join(GLUE_TASKS)}, several separated by commas, or all", group=DATA, commas=True
    )
    data_dir: str | None = option(
        None,
        "folder of the official TSV files; default: the `datasets` set nyu-mll/glue",
        group=DATA,
        marks=(DATA_PLACE, PATH),
    )
    mnli_checkpoint: str | None = option(
        None,
        "start RTE, MRPC and STS-B from this model, fine-tuned on MNLI",
        group=MODEL,
        marks=(MODEL_PLACE,),
    )

    def contradictions(self) -> list[str]:
        """Also refuses data named in two ways."""
        files = (*names_marked(self, SPLIT_FILE), "dataset_config_name")
        return [
            *super().contradictions(),
            *named_twice(self, "data_dir", ("dataset_name",)),
            *named_twice(self, "task_name", files),
        ]
