"""Options outside their range are refused before any data is read: by every recipe, and by a sweep for its rows."""

from __future__ import annotations

from finetuning.examples.batches import batch_shape
from finetuning.examples.dataset_records import subset
from finetuning.examples.pair_template import row_limit
from finetuning.examples.recipe import FinetuningOptions
from finetuning.examples.record_files import bad_text
from finetuning.loop.encoder import require_dropout
from finetuning.loop.schedule import require_schedule
from finetuning.loop.training import engine_options, require_bf16
from pretraining.engines.engine import check_ranks
from runtime.processes.ranks import Ranks
from runtime.trackers import parse_reporters


def check_options(options: FinetuningOptions, ranks: Ranks | None = None) -> None:
    """ValueError, naming the option, for the first one that is wrong whatever the data and the model are.

    Without `ranks` a run is one process. It asks no hardware, so that a sweep may call it, and all ranks say the same.
    """
    ranks = ranks or Ranks()
    require_schedule(options)
    require_bf16(options.bf16)
    require_dropout(options.dropout)
    parse_reporters(options.report_to)
    row_limit(options.max_seq_length, None)
    bad_text(options.on_bad_text)
    if len(set(options.seeds)) < len(options.seeds):
        raise ValueError(f"--seeds {options.seeds}: name each once")
    for limit in (options.max_train_samples, options.max_eval_samples):
        subset((), limit, str)
    check_ranks(engine_options(options, batch_shape(options, ranks.world_size)), ranks)
    options.check_own()
