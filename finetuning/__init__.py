"""Fine-tuning recipes over one training loop: questions, multiple choice, GLUE, classes of texts, tags of words.

from finetuning import finetune, load, predict

outcome = finetune("classification", train_file="train.csv", model_name_or_path="runs/mine/series/annealed-1000000")
outcome.scores, outcome.predictions
model, tokenizer = load(outcome.model)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import runtime  # noqa: F401  (before torch is loaded: see there)
from runtime.lazy_names import lazy_names

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from finetuning.recipes.api import FinetuningOutcome, finetune, predict


def load(directory: str | Path) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """A fine-tuned model with its head, in evaluation mode, and its tokenizer; for any pooling.

    `directory` is the `best` folder of a run. The model takes the tokenizer's tensors and gives `.logits` [texts,
    classes] (words [texts, tokens, tags]; spans `.start_logits` and `.end_logits` [texts, tokens]), as the classes of
    `transformers` do. Raises ValueError where the directory was not written by a recipe.
    """
    from finetuning.run.saved_model import load as load_saved  # torch is loaded only where it is needed

    return load_saved(directory)


__all__ = ["FinetuningOutcome", "finetune", "load", "predict"]

__getattr__, __dir__ = lazy_names(
    __name__, dict.fromkeys(("FinetuningOutcome", "finetune", "predict"), "finetuning.recipes.api")
)
