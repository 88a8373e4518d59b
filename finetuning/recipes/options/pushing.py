"""The options of a push: beside a recipe's own, and of `launch/push.py`."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from finetuning.examples.recipe import SET_BY_A_SWEEP
from pretraining.plan.options import PretrainingOptions
from runtime.hub import place_problems, push_problems
from runtime.options.declaration import Options, option_as_in


@dataclass
class PushingOptions(Options):
    """The options of a recipe that pushes its model; a recipe's own options inherit from it, before the common ones."""

    push_to_hub: bool = option_as_in(
        False,
        PretrainingOptions,
        "push_to_hub",
        "push the best model to --hub_model_id once the run is done: each of --seeds to a branch seed-N, the first to "
        "main, each of several tasks to a repository OWNER/NAME-TASK. The token is that of HF_TOKEN or `hf auth login`",
        marks=(SET_BY_A_SWEEP,),
    )
    hub_model_id: str | None = option_as_in(None, PretrainingOptions, "hub_model_id", marks=(SET_BY_A_SWEEP,))
    hub_private_repo: bool = option_as_in(False, PretrainingOptions, "hub_private_repo", marks=(SET_BY_A_SWEEP,))
    hub_license: str | None = option_as_in(None, PretrainingOptions, "hub_license", marks=(SET_BY_A_SWEEP,))
    hub_language: str | None = option_as_in(None, PretrainingOptions, "hub_language", marks=(SET_BY_A_SWEEP,))

    def contradictions(self) -> list[str]:
        """Also refuses options of the hub without --push_to_hub, and a push of a model that is not kept."""
        problems = [*super().contradictions(), *push_problems(self)]
        if self.push_to_hub and not getattr(self, "save_model", True):
            problems.append(
                "--push_to_hub and --save_model false: there would be no model to push; drop one of the two"
            )
        return problems


@dataclass(frozen=True)
class PushCommandOptions(Options):
    """The options of `launch/push.py`."""

    hub_model_id: str = option_as_in(MISSING, PretrainingOptions, "hub_model_id")
    hub_private_repo: bool = option_as_in(False, PretrainingOptions, "hub_private_repo")
    hub_license: str | None = option_as_in(None, PretrainingOptions, "hub_license")
    hub_language: str | None = option_as_in(None, PretrainingOptions, "hub_language")

    def contradictions(self) -> list[str]:
        """What is wrong with the names."""
        return place_problems(self)
