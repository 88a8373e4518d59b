"""Pretraining: model, engines, schedule, budget, checkpoint series and the training loop."""

import shards  # noqa: F401  (before torch is loaded: see there)
