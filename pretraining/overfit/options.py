"""The options of `launch/overfit.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pretraining.plan.options import PretrainingOptions
from runtime.options.declaration import DATA, TRAINING, Options, by_data, option, option_as_in
from shards.streaming.options import StreamOptions

UNNAMED = "if none is named"  # when --model has a default


@dataclass(frozen=True)
class OverfitOptions(Options):
    """A model, data and one or more learning rates to try."""

    shards: str | None = option_as_in(
        None, PretrainingOptions, "shards", "shard directory or https address; default: the embedded small world"
    )
    max_seq_length: int = option_as_in(64, PretrainingOptions, "max_seq_length", "tokens per sequence")
    mask_rate: float = option_as_in(0.15, PretrainingOptions, "mask_rate", "share of the tokens to predict")
    show_sequences: int = option(2, "sequences printed with targets and predictions", group=DATA, at_least=0)

    model: str | None = option_as_in(
        None, PretrainingOptions, "model", "named size such as bert-mini", by_data={UNNAMED: "bert-tiny"}
    )
    from_config: str | None = option_as_in(
        None, PretrainingOptions, "from_config", "any transformers configuration, instead of a named size"
    )
    model_name_or_path: str | None = option_as_in(
        None, PretrainingOptions, "model_name_or_path", "trained weights to start from, instead of a named size"
    )
    config_overrides: str | None = option_as_in(
        None, PretrainingOptions, "config_overrides", "changes to the configuration: num_hidden_layers=3,..."
    )
    objective: str = option_as_in(
        "mlm", PretrainingOptions, "objective", "masked tokens only or, for BERT, next-sentence prediction too"
    )

    learning_rate: list[float] = option_as_in(
        [1e-3],
        PretrainingOptions,
        "learning_rate",
        "one rate, or several to compare",
        above=0,
        nargs="+",
        at_least=None,
    )
    max_steps: int = option(
        100, "updates on the batch before giving up", group=TRAINING, at_least=1, formerly=("max_updates",)
    )
    global_batch_rows: int = option_as_in(
        8, PretrainingOptions, "global_batch_rows", "sequences in the batch", at_least=1, formerly=("batch_rows",)
    )
    max_grad_norm: float = option_as_in(1.0, PretrainingOptions, "max_grad_norm")
    seed: int = option_as_in(0, PretrainingOptions, "seed", "seed of the weights, rows and masks")

    def configuration(self) -> dict[str, Any]:
        """The model to try, as `build_configuration` takes it: a size, a configuration or trained weights."""
        named = self.model or self.from_config or self.model_name_or_path
        return {
            "model": self.model if named else by_data(self, UNNAMED)["model"],
            "from_config": self.from_config,
            "model_name_or_path": self.model_name_or_path,
            "config_overrides": self.config_overrides,
        }

    def stream(self) -> StreamOptions:
        """The stream whose first batch is tried: all rows of one update at once."""
        return StreamOptions(
            seed=self.seed,
            global_batch_rows=self.global_batch_rows,
            micro_batch_rows=self.global_batch_rows,
            lengths=((0, self.max_seq_length),),
            objective=self.objective,
            mask_rate=self.mask_rate,
        )
