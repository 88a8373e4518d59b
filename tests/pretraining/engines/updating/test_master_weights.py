import pytest
import torch
from torch import nn

from pretraining.engines.engine import EngineOptions
from pretraining.engines.torch_engine import TorchEngine
from pretraining.engines.updating.master_weights import MasterWeights
from runtime.processes.ranks import Ranks


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3))


def test_gradients_of_micro_batches_are_added_in_fp32():
    """256 gradients of 1/256 and one of 256: in bf16 the small ones would be lost."""
    weight = nn.Linear(1, 1, bias=False)
    masters = MasterWeights(weight)
    for value in (256.0, *[1 / 256] * 256):
        weight(torch.full((1, 1), value, dtype=torch.bfloat16)).sum().backward()
    (master,) = masters.parameters.values()
    assert master.grad.item() == 257.0
    assert weight.weight.grad is None


def test_small_updates_are_not_lost():
    """1 + 100 steps of 1e-3: each is below bf16's resolution at 1."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    masters = MasterWeights(module)
    for _ in range(100):
        with torch.no_grad():
            masters.parameters["weight"] += 1e-3
        masters.publish()
    assert module.weight.dtype == torch.bfloat16
    assert module.weight.item() == pytest.approx(1.1, abs=5e-3)
    assert masters.parameters["weight"].item() == pytest.approx(1.1, abs=1e-5)


def test_tied_frozen_and_buffers():
    module = layers()
    module[2].weight.requires_grad_(False)
    module.register_buffer("frequencies", torch.tensor([0.123456789]))
    module.tied = nn.Linear(8, 8)
    module.tied.weight = module[0].weight
    masters = MasterWeights(module)
    assert module.frequencies.dtype == torch.float32
    assert "tied.weight" not in masters.parameters
    assert masters.of(module.tied.weight) is masters.parameters["0.weight"]
    module.tied(module[0](torch.ones(1, 8, dtype=torch.bfloat16))).sum().backward()
    assert masters.parameters["2.weight"].grad is None
    assert masters.parameters["0.weight"].grad is not None


def test_the_state_of_the_engine_is_fp32_and_comes_back_exactly():
    def engine():
        return TorchEngine(layers(), EngineOptions(bf16=True), ranks=Ranks(), device=torch.device("cpu"))

    one, two = engine(), engine()
    inputs = torch.randn(4, 8).to(torch.bfloat16)

    def train(trained, updates):
        for _ in range(updates):
            trained.backward(trained.module(inputs).float().pow(2).sum(), last=True)
            trained.step(1e-2)

    train(one, 3)
    state = dict(one.state_tensors())
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    two.load_state(lambda name, shape: state[name].clone(), optimizer_steps=one.optimizer_steps(), example={})
    assert all(
        torch.equal(mine, theirs) for mine, theirs in zip(one.module.parameters(), two.module.parameters(), strict=True)
    )
    train(one, 2)
    train(two, 2)
    after = dict(two.state_tensors())
    assert all(torch.equal(tensor, after[name]) for name, tensor in one.state_tensors())
