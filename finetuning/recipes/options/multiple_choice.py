"""The options of multiple choice, alone or as the first stage of the chain."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finetuning.examples.recipe import MODEL_PLACE
from finetuning.recipes.options.qa import QAOptions
from runtime.options.declaration import names_marked, option
from runtime.options.option_rules import idle_without

CHAIN = "chain of two stages"
OF_THE_CHAIN = "of the second stage"


@dataclass
class MultipleChoiceOptions(QAOptions):
    """Options of multiple choice; those of QA are for the chain's second stage."""

    chain: bool = option(
        False, "two-stage data: answer each question in the paragraph that was chosen for it", group=CHAIN
    )
    qa_model_name_or_path: str | None = option(
        None,
        "model of the chain's second stage; default: the first's",
        group=CHAIN,
        marks=(OF_THE_CHAIN, MODEL_PLACE),
    )
    qa_learning_rate: float | None = option(
        None,
        "learning rate of the second stage; default: the first's",
        group=CHAIN,
        at_least=0,
        below=math.inf,
        marks=(OF_THE_CHAIN,),
    )
    qa_num_train_epochs: float | None = option(
        None,
        "epochs of the second stage; default: the first's",
        group=CHAIN,
        at_least=0,
        below=math.inf,
        marks=(OF_THE_CHAIN,),
    )

    def contradictions(self) -> list[str]:
        """Also refuses options of the second stage without a second stage."""
        return [*super().contradictions(), *idle_without(self, "chain", names_marked(self, OF_THE_CHAIN))]
