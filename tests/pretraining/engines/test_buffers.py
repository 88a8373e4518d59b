"""A module's buffers keep their precision when DeepSpeed casts it."""

import torch
from torch import nn

from pretraining.engines.deepspeed_engine import restore_buffers


def test_rotary_frequencies_stay_fp32_after_a_cast():
    module = nn.Sequential(nn.Linear(2, 2))
    module.register_buffer("frequencies", torch.tensor([0.123456789, 1e-4]), persistent=False)
    module.register_buffer("places", torch.arange(3))
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module.bfloat16()
    assert not torch.equal(module.frequencies.float(), before["frequencies"])
    restore_buffers(module, before)
    assert torch.equal(module.frequencies, before["frequencies"])
    assert module.places.dtype == torch.int64
    assert module[0].weight.dtype == torch.bfloat16
