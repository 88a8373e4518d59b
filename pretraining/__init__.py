"""Pretraining: models, engines, budgets, the checkpoint series and the training loop."""

import runtime  # noqa: F401  (before torch is loaded: see there)
