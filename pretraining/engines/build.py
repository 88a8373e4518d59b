"""The choice of engine: DeepSpeed's where a JSON is given, otherwise torch's own."""

from __future__ import annotations

import torch
from torch import nn

from pretraining.engines.engine import Engine, EngineOptions
from pretraining.engines.torch_engine import TorchEngine
from runtime.processes.ranks import Ranks, init_process_group


def build_engine(model: nn.Module, options: EngineOptions, *, ranks: Ranks, device: torch.device) -> Engine:
    """Shard `model` over the ranks and give it an optimizer: DeepSpeed where `options.deepspeed` is given.

    Raises ValueError for options that contradict the JSON, the world size or each other.
    """
    if options.deepspeed is not None:
        from pretraining.engines.deepspeed_engine import DeepSpeedEngine  # imports deepspeed: seconds

        # DeepSpeed wants a process group on a single rank too.
        init_process_group(ranks, device, always=True)
        return DeepSpeedEngine(model, options, options.deepspeed, ranks=ranks, device=device)
    init_process_group(ranks, device)
    return TorchEngine(model, options, ranks=ranks, device=device)
