"""Decay groups, LAMB against a scalar reference, and the rules for the learning rate."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from pretraining.engines.updating.lamb import trust_ratio
from pretraining.engines.updating.optimizers import (
    Lamb,
    OptimizerOptions,
    build_optimizer,
    parameter_groups,
    scaled_learning_rate,
    set_learning_rate,
    split_groups,
)

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}


def bert() -> nn.Module:
    return transformers.BertForMaskedLM(transformers.BertConfig(**SIZES))


def modernbert() -> nn.Module:
    special = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    return transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**SIZES, **special, norm_bias=True))


class RootMeanSquareNorm(nn.Module):
    """A model's own norm, with a gain that is a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2, 3))


@pytest.mark.parametrize("build", [bert, modernbert])
def test_every_parameter_is_in_one_group_and_tied_ones_only_once(build):
    model = build()
    grouped = [parameter for group in parameter_groups(model, 0.1) for parameter in group["params"]]
    assert len({id(parameter) for parameter in grouped}) == len(grouped)
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize("build", [bert, modernbert])
def test_norms_and_biases_do_not_decay_and_matrices_do(build):
    model = build()
    decay = {
        id(parameter): group["weight_decay"] for group in parameter_groups(model, 0.1) for parameter in group["params"]
    }
    kinds = set()
    for name, module in model.named_modules():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            matrix = isinstance(module, nn.Linear | nn.Embedding) and parameter_name == "weight"
            kinds.add((type(module).__name__, matrix))
            assert decay[id(parameter)] == (0.1 if matrix else 0.0), f"{name}.{parameter_name}"
    assert {("LayerNorm", False), ("Linear", True), ("Embedding", True)} <= kinds


def test_a_norm_is_known_by_its_class_whatever_its_shape_and_parameter_names():
    model = nn.ModuleDict({"mixer": RootMeanSquareNorm(), "layer": nn.LayerNorm((2, 3)), "linear": nn.Linear(3, 2)})
    decayed = [
        parameter for group in parameter_groups(model, 0.1) if group["weight_decay"] for parameter in group["params"]
    ]
    assert [id(parameter) for parameter in decayed] == [id(model["linear"].weight)]


def test_frozen_parameters_are_left_out_and_nothing_trainable_is_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert sum(len(group["params"]) for group in parameter_groups(model, 0.1)) == 2
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        parameter_groups(model, 0.1)


def lamb_reference(
    weight: list[list[float]],
    gradients: list[list[list[float]]],
    *,
    rate: float,
    decay: float,
    betas=(0.9, 0.99),
    eps=1e-6,
) -> list[list[float]]:
    """Algorithm 2 of You et al. 2020 for one matrix, number by number."""
    weights = [value for row in weight for value in row]
    mean, square = [0.0] * len(weights), [0.0] * len(weights)
    for step, gradient in enumerate(gradients, start=1):
        flat = [value for row in gradient for value in row]
        mean = [betas[0] * m + (1 - betas[0]) * g for m, g in zip(mean, flat, strict=True)]
        square = [betas[1] * v + (1 - betas[1]) * g * g for v, g in zip(square, flat, strict=True)]
        directions = [
            (m / (1 - betas[0] ** step)) / (math.sqrt(v / (1 - betas[1] ** step)) + eps) + decay * w
            for m, v, w in zip(mean, square, weights, strict=True)
        ]
        ratio = math.hypot(*weights) / math.hypot(*directions)
        weights = [w - rate * ratio * d for w, d in zip(weights, directions, strict=True)]
    width = len(weight[0])
    return [weights[start : start + width] for start in range(0, len(weights), width)]


def test_lamb_equals_the_algorithm_of_the_paper():
    weight = [[0.5, -1.0, 2.0], [0.1, 0.3, -0.7]]
    gradients = [
        [[0.3, -0.2, 0.1], [1.0, -0.5, 0.2]],
        [[-0.1, 0.4, 0.9], [0.2, 0.2, -0.3]],
        [[0.7, 0.1, 0.0], [0.0, -1.0, 0.5]],
    ]
    parameter = nn.Parameter(torch.tensor(weight))
    optimizer = Lamb([parameter], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    expected = lamb_reference(weight, gradients, rate=0.01, decay=0.1)
    torch.testing.assert_close(parameter.detach(), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_lamb_steps_a_matrix_by_the_rate_times_its_norm_and_a_bias_by_adam():
    layer = nn.Linear(4, 3)
    nn.init.constant_(layer.bias, 0.5)
    before = copy.deepcopy(layer)
    for parameter in layer.parameters():
        parameter.grad = torch.randn_like(parameter) * 100
    build_optimizer(parameter_groups(layer, 0.0), OptimizerOptions(name="lamb", learning_rate=0.01)).step()
    moved = (layer.weight - before.weight).norm()
    torch.testing.assert_close(moved, 0.01 * before.weight.norm())
    torch.testing.assert_close((layer.bias - before.bias).abs(), torch.full((3,), 0.01), rtol=1e-3, atol=0)


def test_the_trust_ratio_of_a_zero_weight_or_a_zero_step_is_one():
    zero, some = torch.zeros(2, 2), torch.ones(2, 2)
    assert trust_ratio(zero, some) == 1
    assert trust_ratio(some, zero) == 1
    assert trust_ratio(4 * some, 2 * some) == 2


def test_lamb_resumes_from_its_state():
    def trained(steps: int, optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> None:
        for _ in range(steps):
            parameter.grad = parameter.detach().sin() + 0.1
            optimizer.step()

    whole = nn.Parameter(torch.arange(6.0).reshape(2, 3))
    first = nn.Parameter(whole.detach().clone())
    trained(6, Lamb([whole]), whole)
    interrupted = Lamb([first])
    trained(3, interrupted, first)
    second = nn.Parameter(first.detach().clone())
    resumed = Lamb([second])
    resumed.load_state_dict(copy.deepcopy(interrupted.state_dict()))
    trained(3, resumed, second)
    torch.testing.assert_close(second, whole, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("auto", torch.optim.AdamW), ("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("lamb", Lamb)],
)
def test_the_named_optimizer_is_built_with_its_constants(name, kind):
    options = OptimizerOptions(name=name, learning_rate=0.25, betas=(0.5, 0.75), eps=0.125, weight_decay=0.5)
    optimizer = build_optimizer(parameter_groups(nn.Linear(2, 2), options.weight_decay), options)
    assert type(optimizer) is kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    assert all(
        (group["lr"], group["betas"], group["eps"]) == (0.25, (0.5, 0.75), 0.125) for group in optimizer.param_groups
    )


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"name": "adamx"}, "adamx"),
        ({"learning_rate": -1.0}, "-1.0"),
        ({"learning_rate": math.nan}, "nan"),
        ({"weight_decay": -0.1}, "-0.1"),
        ({"betas": (0.9, 1.0)}, "1.0"),
        ({"eps": 0.0}, "0.0"),
    ],
)
def test_constants_outside_their_range_are_refused_with_the_value(constants, message):
    with pytest.raises(ValueError, match=message):
        OptimizerOptions(**constants)


def test_the_rules_for_the_learning_rate():
    assert scaled_learning_rate(1e-3, rows=192, reference_rows=48) == 1e-3
    assert scaled_learning_rate(1e-3, rows=192, reference_rows=48, rule="linear") == pytest.approx(4e-3)
    assert scaled_learning_rate(1e-3, rows=192, reference_rows=48, rule="sqrt") == pytest.approx(2e-3)
    with pytest.raises(ValueError, match="cubic"):
        scaled_learning_rate(1e-3, rows=1, reference_rows=1, rule="cubic")
    with pytest.raises(ValueError, match="0 and 48"):
        scaled_learning_rate(1e-3, rows=0, reference_rows=48)


def sharded_updates(rank: int, port: int, name: str, directory: str) -> None:
    """Three updates on two ranks with FSDP2; rank 0 saves the whole weights."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = updated_model(name, fully_shard)
    weights = [parameter.full_tensor() for parameter in model.parameters()]
    if rank == 0:
        torch.save(weights, f"{directory}/weights.pt")
    dist.barrier()
    dist.destroy_process_group()


def updated_model(name: str, shard: Any) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    shard(model)
    options = OptimizerOptions(name=name, learning_rate=0.01)
    optimizer = build_optimizer(parameter_groups(model, 0.1), options)
    rows = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        model(rows).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "adam", "lamb"])
def test_two_sharded_ranks_make_the_updates_of_one(name, tmp_path, free_port):
    torch.multiprocessing.spawn(sharded_updates, args=(free_port, name, str(tmp_path)), nprocs=2)
    sharded = torch.load(tmp_path / "weights.pt", weights_only=True)
    whole = list(updated_model(name, lambda model: model).parameters())
    for ours, expected in zip(sharded, whole, strict=True):
        torch.testing.assert_close(ours, expected.detach(), rtol=1e-5, atol=1e-7)


def test_lamb_skips_an_update_that_is_not_finite_and_still_makes_its_state():
    """As in torch's fused optimizers, `found_inf` skips a step: a resumed run creates its moments by one."""
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = build_optimizer([{"params": [weight], "weight_decay": 0.1}], OptimizerOptions(name="lamb"))
    weight.grad = torch.full((3, 2), float("nan"))
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    state = optimizer.state[weight]
    assert weight.detach().equal(torch.ones(3, 2))
    assert (state["step"].item(), state["exp_avg"].sum().item(), state["exp_avg_sq"].sum().item()) == (0, 0, 0)
    optimizer.found_inf = torch.zeros(())
    weight.grad = torch.ones(3, 2)
    optimizer.step()
    assert state["step"].item() == 1
    assert not weight.detach().equal(torch.ones(3, 2))


def test_groups_that_are_frozen_take_no_step_and_no_decay_until_they_are_not():
    """As ZeRO updates them: with gradients of zero, whole groups at a time."""
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    fresh = {id(parameter) for parameter in model[2].parameters()}
    groups = split_groups(parameter_groups(model, 0.5), fresh)
    assert [len(group["params"]) for group in groups] == [1, 1, 3, 1]
    optimizer = build_optimizer(groups, OptimizerOptions(weight_decay=0.5))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for frozen in (True, False):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, float(id(parameter) in fresh))
        set_learning_rate(optimizer, 0.1, frozen=frozen)
        optimizer.step()
        kept = [one.equal(other) for one, other in zip(before, model.parameters(), strict=True)]
        # Of the others weight decay moves the matrix alone.
        assert kept == ([True] * 4 + [False] * 2 if frozen else [False, True, True, True, False, False])
