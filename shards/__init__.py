"""The data pipeline: text, tokens, tar shards, masked batches; independent of distributed training.

from shards import build, stream

build(input="corpus/*.jsonl", output_dir="shards/mine", vocab_size=32768)
batches = stream("shards/mine", batch_rows=32, seed=0)
for batch in batches:  # a dict of tensors, for any masked-language model of transformers
    loss = model(**batch).loss
    ...
    batches.position  # give it to stream() again, and it goes on behind this batch
"""

import runtime  # noqa: F401  (before torch is loaded: see there)
from runtime.lazy_names import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shards.api import BuildKeywords, MaskedBatches, build, stream
    from shards.building.builder import Summary
    from shards.building.options import BuildOptions

__all__ = ["BuildKeywords", "BuildOptions", "MaskedBatches", "Summary", "build", "stream"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BuildKeywords": "shards.api",
        "BuildOptions": "shards.building.options",
        "MaskedBatches": "shards.api",
        "Summary": "shards.building.builder",
        "build": "shards.api",
        "stream": "shards.api",
    },
)
