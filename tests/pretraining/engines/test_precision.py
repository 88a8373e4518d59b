"""The meaning of --bf16 auto: bf16 where the hardware computes in it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pretraining.engines import precision
from pretraining.engines.deepspeed_engine import restore_buffers
from pretraining.engines.precision import choose_precision, require_half
from runtime.machine import bf16_support


def chosen(choice="auto", device_type="cpu", model_type="bert", **more):
    return choose_precision(choice, device_type=device_type, model_type=model_type, **more)


@pytest.mark.parametrize(("capability", "expected"), [(7, False), (8, True), (9, True)])
def test_auto_is_bf16_on_gpus_that_do_not_emulate_it(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=capability))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    assert bf16_support("cuda")[0] is expected
    assert chosen(device_type="cuda").bf16 is expected
    assert chosen("true", device_type="cuda").bf16


@pytest.mark.parametrize(
    ("capabilities", "reason"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "the processor has AMX and AVX-512 BF16"),
        ({"avx512_bf16": True}, "the processor has AVX-512 BF16"),
        ({"avx512_bw": True, "amx_bf16": False}, ""),
    ],
)
def test_auto_is_bf16_on_processors_with_units_for_it(monkeypatch, capabilities, reason):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    precision = chosen()
    assert precision.bf16 is bool(reason)
    assert precision.reason == (reason or "this processor only emulates bf16")


@pytest.mark.parametrize(
    ("more", "bf16", "reason"),
    [
        ({"deepspeed": {"zero_optimization": {"stage": 0}}}, False, "ZeRO stage 0"),
        ({"deepspeed": {}}, False, "ZeRO stage 0"),
        ({"deepspeed": {"zero_optimization": {"stage": 2}, "bf16": {"enabled": False}}}, False, "JSON"),
        ({"deepspeed": {"zero_optimization": {"stage": 2}, "bf16": {"enabled": "auto"}}}, True, "AMX"),
        ({"model_type": "fnet"}, False, "Fourier"),
        ({"earlier": False}, False, "began"),
        ({"earlier": True, "model_type": "fnet"}, True, "began"),
    ],
)
def test_what_auto_gives_way_to(monkeypatch, more, bf16, reason):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    precision = chosen(**more)
    assert precision.bf16 is bf16
    assert reason in precision.reason


def test_a_precision_that_is_given_holds(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert chosen("true", earlier=False).bf16
    assert not chosen("false", earlier=True).bf16
    with pytest.raises(ValueError, match=r"--bf16 true: fnet computes in fp32 only .* use --bf16 false"):
        chosen("true", model_type="fnet")
    with pytest.raises(ValueError, match=r"--fp16: mra computes in fp32 only .* leave it out"):
        require_half("mra", "--fp16")


def test_fp16_under_deepspeed_needs_a_processor_that_computes_it(monkeypatch):
    """DeepSpeed refused it when the run had begun, with a trace of its own."""
    monkeypatch.setattr(precision, "computes_fp16", lambda device_type: device_type != "cpu")
    with pytest.raises(ValueError, match=r"--fp16: DeepSpeed .* use --bf16 true, or leave --deepspeed out"):
        precision.require_fp16("cpu", {"zero_optimization": {"stage": 2}})
    precision.require_fp16("cpu", None)
    precision.require_fp16("cuda", {})


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
