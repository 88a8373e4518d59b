"""Pretraining: models, engines, budgets, the checkpoint series and the training loop.

from pretraining import pretrain

result = pretrain(shards="shards/mine", model="modernbert-tiny", budget_tokens=1e6, output_dir="runs/mine")
result.checkpoints, result.losses, result.model
"""

import runtime  # noqa: F401  (before torch is loaded: see there)
from runtime.lazy_names import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pretraining.api import PretrainingKeywords, PretrainingResult, pretrain
    from pretraining.plan.options import PretrainingOptions

__all__ = ["PretrainingKeywords", "PretrainingOptions", "PretrainingResult", "pretrain"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PretrainingKeywords": "pretraining.api",
        "PretrainingOptions": "pretraining.plan.options",
        "PretrainingResult": "pretraining.api",
        "pretrain": "pretraining.api",
    },
)
