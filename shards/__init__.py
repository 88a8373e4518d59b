"""The data pipeline: text, tokens, tar shards, masked batches; independent of distributed training."""

import runtime  # noqa: F401  (before torch is loaded: see there)
