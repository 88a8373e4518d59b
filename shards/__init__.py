"""Text to tokens to tar shards to masked batches; knows nothing of distributed training."""

import runtime  # noqa: F401  (before torch is loaded: see there)
