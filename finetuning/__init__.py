"""Fine-tuning recipes over one training loop: questions, multiple choice, GLUE, classes of texts, tags of words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import runtime  # noqa: F401  (before torch is loaded: see there)

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


def load(directory: str | Path) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """A fine-tuned model with its head, and its tokenizer: see `finetuning.run.saved_model.load`."""
    from finetuning.run.saved_model import load as load_saved  # torch is loaded only where it is needed

    return load_saved(directory)
