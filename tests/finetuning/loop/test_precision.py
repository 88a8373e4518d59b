"""bf16 where the GPU computes in it."""

from types import SimpleNamespace

import pytest
import torch

from finetuning.loop.training import uses_bf16


@pytest.mark.parametrize(("capability", "expected"), [(7, False), (8, True), (9, True)])
def test_auto_is_bf16_on_gpus_that_do_not_emulate_it(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=capability))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    assert uses_bf16("auto") is expected
    assert uses_bf16("true")


def test_auto_is_fp32_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not uses_bf16("auto")
