"""Fine-tuning recipes: question answering, multiple choice, GLUE and classification over one training loop."""

import shards  # noqa: F401  (before torch is loaded: see there)
