"""The options of extractive question answering."""

from __future__ import annotations

from dataclasses import dataclass

from finetuning.examples.recipe import KEPT, PATH, SPLIT_FILE, FinetuningOptions
from finetuning.model.names import LANGUAGES
from finetuning.recipes.options.pushing import PushingOptions
from runtime.options.declaration import DATA, names_marked, option
from runtime.options.option_rules import idle_without, named_twice

ANSWERS = "answers"


@dataclass
class QAOptions(PushingOptions, FinetuningOptions):
    """Options of extractive question answering."""

    context_file: str | None = option(
        None, "two-stage data: the JSON list of paragraphs that the rows refer to by number", group=DATA, marks=(PATH,)
    )
    doc_stride: int = option(
        128,
        "overlap of neighbouring windows in tokens (in the original BERT: the step)",
        group=DATA,
        at_least=0,
        what="the overlap of two windows in tokens",
        marks=(KEPT,),
    )
    n_best_size: int = option(20, "candidates kept for each question", group=ANSWERS, at_least=1, marks=(KEPT,))
    max_answer_length: int = option(30, "longest answer in tokens", group=ANSWERS, at_least=1, marks=(KEPT,))
    version_2_with_negative: bool = option(
        False, "some questions have no answer, and none may be given", group=ANSWERS, marks=(KEPT,)
    )
    null_score_diff_threshold: float = option(
        0.0,
        "v2: how far the no-answer score must exceed the best answer's",
        group=ANSWERS,
        marks=(KEPT,),
    )
    answer_language: str = option(
        "auto",
        "language whose exact match and F1 are computed: en (SQuAD), zh (CMRC), or auto: by the answers",
        group=ANSWERS,
        choices=LANGUAGES,
        marks=(KEPT,),
    )

    def contradictions(self) -> list[str]:
        """Also refuses data named in two ways."""
        files = (*names_marked(self, SPLIT_FILE), "context_file")
        return [
            *super().contradictions(),
            *named_twice(self, "dataset_name", files),
            *idle_without(self, "dataset_name", ("dataset_config_name",)),
        ]
