"""Muon against its polynomial on singular values and against torch's own, its groups, its shards, what it skips."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import transformers
from pretraining_runs import ROOT, assert_same_course, in_process, journal, on_forked_ranks, run_together, write_shards
from tiny_encoder import built_model
from torch import nn

from pretraining.checkpoints.checkpoint import Checkpoint
from pretraining.engines.deepspeed_config import resolve_config
from pretraining.engines.updating.muon import COEFFICIENTS, IS_MUON, MOMENTUM, STEPS, Muon, orthogonalized
from pretraining.engines.updating.optimizers import OptimizerOptions, optimizer_for, parameter_groups, set_learning_rate
from pretraining.model.memory import Sharding, count_parameters, model_states

SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
MUON = {"optimizer": "muon", "muon_learning_rate": 0.02}


def matrix_group(*parameters, decay=0.0):
    return [{"params": list(parameters), "weight_decay": decay, IS_MUON: True}]


def reference_direction(matrix):
    """The same polynomial applied to each singular value, which is what the products amount to."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    first, third, fifth = COEFFICIENTS
    for _ in range(STEPS):
        values = first * values + third * values**3 + fifth * values**5
    return left @ torch.diag(values) @ right


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 8), (1, 6)])
def test_directions_are_those_of_the_polynomial_on_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    torch.testing.assert_close(orthogonalized(matrix).double(), reference_direction(matrix), rtol=1e-4, atol=1e-5)
    assert orthogonalized(torch.zeros(shape)).equal(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_an_update_is_that_of_a_plain_implementation(shape):
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(shape, generator=generator)
    weight, momentum = start.double(), torch.zeros(shape, dtype=torch.float64)
    parameter = nn.Parameter(start.clone())
    optimizer = Muon(matrix_group(parameter, decay=0.1), lr=0.05)
    for _ in range(4):
        gradient = torch.randn(shape, generator=generator)
        parameter.grad = gradient.clone()
        optimizer.step()
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * gradient.double()
        direction = reference_direction(MOMENTUM * momentum + (1 - MOMENTUM) * gradient.double())
        weight = weight * (1 - 0.05 * 0.1) - 0.05 * math.sqrt(max(1, shape[0] / shape[1])) * direction
    torch.testing.assert_close(parameter.detach().double(), weight, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_it_is_torchs_own_muon():
    start = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = Muon(matrix_group(mine, decay=0.1), lr=0.02, dtype=torch.bfloat16)
    torchs = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1)
    for step in range(5):
        mine.grad = theirs.grad = torch.randn(24, 16, generator=torch.Generator().manual_seed(1 + step))
        ours.step()
        torchs.step()
    torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-3)
    torch.testing.assert_close(
        ours.state[mine]["momentum_buffer"], torchs.state[theirs]["momentum_buffer"], rtol=1e-6, atol=1e-7
    )


def test_a_parameter_that_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\): leave it to AdamW"):
        Muon(matrix_group(nn.Parameter(torch.zeros(2, 3, 4))))


@pytest.mark.parametrize(("name", "count"), [("bert-tiny", 2 * 6), ("modernbert-tiny", 4 * 4)])
def test_it_takes_the_matrices_of_the_layers_and_adamw_the_rest(name, count):
    model = built_model(name, vocab_size=101, special_ids=SPECIAL_IDS, max_seq_length=16)
    groups = parameter_groups(model, 0.1, matrix_rate_scale=20.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    taken = {names[id(each)] for group in groups if group.get(IS_MUON) for each in group["params"]}
    layers = {
        f"{where}.weight"
        for where, module in model.named_modules()
        if isinstance(module, nn.Linear) and (".layer." in where or ".layers." in where)
    }
    assert taken == layers
    assert len(taken) == count
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.0]
    with pytest.raises(ValueError, match="Linear has no trainable matrix in repeated layers: use --optimizer adamw"):
        parameter_groups(nn.Linear(2, 2), 0.1, matrix_rate_scale=20.0)


def test_its_matrices_have_a_rate_of_their_own_that_follows_the_schedule():
    model = built_model("modernbert-tiny", vocab_size=101, special_ids=SPECIAL_IDS, max_seq_length=16)
    options = OptimizerOptions(name="muon", learning_rate=1e-3, muon_learning_rate=0.02)
    optimizer = optimizer_for(model, options)
    set_learning_rate(optimizer, 5e-4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 5e-4, 5e-4])
    set_learning_rate(optimizer_for(model, OptimizerOptions()), 1.0)
    for rates in ({"learning_rate": 0.0}, {"muon_learning_rate": -1.0}, {"muon_learning_rate": math.nan}):
        with pytest.raises(ValueError, match=r"learning rates .* of Muon"):
            OptimizerOptions(name="muon", **rates)


def test_the_rest_is_updated_as_adamw_would():
    model = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        )
    )
    other = copy.deepcopy(model)
    ours = optimizer_for(model, OptimizerOptions(name="muon", learning_rate=1e-2))
    theirs = optimizer_for(other, OptimizerOptions(name="adamw", learning_rate=1e-2))
    for step in range(3):
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            gradient = torch.randn(one.shape, generator=torch.Generator().manual_seed(step))
            one.grad, two.grad = gradient, gradient.clone()
        ours.step()
        theirs.step()
    muon = {id(each) for group in ours.param_groups if group[IS_MUON] for each in group["params"]}
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert one.equal(two) is (id(one) not in muon)


def test_an_update_that_is_not_finite_is_skipped_and_makes_the_state():
    matrix, vector = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3))
    optimizer = Muon([*matrix_group(matrix, decay=0.1), {"params": [vector], "weight_decay": 0.1}], lr=0.1)

    def update(value, skipped):
        matrix.grad, vector.grad = torch.full((3, 2), value), torch.full((3,), value)
        optimizer.found_inf = torch.full((), float(skipped))
        optimizer.step()

    update(math.nan, skipped=True)
    assert matrix.detach().equal(torch.ones(3, 2))
    assert vector.detach().equal(torch.ones(3))
    assert sorted(optimizer.state[matrix]) == ["momentum_buffer"]
    assert sorted(optimizer.state[vector]) == ["exp_avg", "exp_avg_sq", "step"]
    update(1.0, skipped=False)
    before = [copy.deepcopy(value) for value in (matrix.data, optimizer.state[matrix]["momentum_buffer"])]
    update(math.inf, skipped=True)
    assert matrix.detach().equal(before[0])
    assert optimizer.state[matrix]["momentum_buffer"].equal(before[1])
    assert not before[0].equal(torch.ones(3, 2))


def test_the_plan_counts_one_moment_for_each_matrix():
    model = built_model("modernbert-tiny", vocab_size=101, special_ids=SPECIAL_IDS, max_seq_length=16)
    optimizer = optimizer_for(model, OptimizerOptions(name="muon"))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = sum(value.nbytes for state in optimizer.state.values() for name, value in state.items() if name != "step")
    assert model_states(count_parameters(model), Sharding(), muon=True).device["moments"] == held
    shared = model_states(count_parameters(model), Sharding("full_shard", 2), muon=True)
    assert shared.device["moments"] == pytest.approx(held / 2, abs=4)


def resolved(config, name="muon"):
    return resolve_config(
        config,
        micro_batch_size=1,
        accumulation=1,
        world_size=1,
        clipping=1.0,
        bf16=False,
        optimizer=OptimizerOptions(name=name),
    )


def test_zero_stages_with_slices_are_refused_with_the_remedy():
    assert "optimizer" not in resolved({"zero_optimization": {"stage": 0}})
    for stage in (1, 2, 3):
        with pytest.raises(ValueError, match=f"stage {stage} has only slices of them: use stage 0, or FSDP2"):
            resolved({"zero_optimization": {"stage": stage}})
    with pytest.raises(ValueError, match=r"optimizer.type Muon is not accepted: .* use --optimizer muon"):
        resolved({"optimizer": {"type": "Muon"}}, name="auto")
    with pytest.raises(ValueError, match=r"AdamW \(adamw\) in the JSON and muon by --optimizer"):
        resolved({"optimizer": {"type": "AdamW"}})


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"))


def test_a_resumed_run_is_bit_identical(shards, tmp_path, capsys):
    in_process(shards, tmp_path / "whole", MUON)
    assert "muon for the layers' matrices (peak learning rate 0.02) and torch adamw" in capsys.readouterr().out
    in_process(shards, tmp_path / "cut", {**MUON, "save_steps": 3}, fault="update.before:8:fail", status=1)
    in_process(shards, tmp_path / "cut", MUON)
    losses = [[line["loss"] for line in journal(tmp_path / run)] for run in ("whole", "cut")]
    assert len(losses[0]) == 20
    assert losses[0] == losses[1]
    last = [max((tmp_path / run / "checkpoints").glob("step-*")) for run in ("whole", "cut")]
    one, two = (Checkpoint(path) for path in last)
    assert one.names == two.names
    assert {name.split("/")[1] for name in one.names} == {"weight", "momentum_buffer", "exp_avg", "exp_avg_sq"}
    assert all(one.read(name).equal(two.read(name)) for name in one.names)


def test_another_optimizer_is_another_run_and_its_rate_means_nothing_without_it(shards, tmp_path, capsys):
    in_process(shards, tmp_path / "run", {**MUON, "budget_tokens": 800})
    in_process(shards, tmp_path / "run", {"budget_tokens": 800}, status=2)
    assert "optimizer: muon there, adamw here" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        in_process(shards, tmp_path / "other", {"muon_learning_rate": 0.01})
    assert "--muon_learning_rate 0.01 does nothing with --optimizer auto" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_ranks_make_the_updates_of_one(shards, tmp_path):
    """Whole matrices under FSDP2 in all its modes, and at ZeRO stage 0; with micro-batches and a resumption."""
    full = {**MUON, "series": 2}
    in_process(shards, tmp_path / "alone", full)
    choices = {
        "full_shard": full,
        "shard_grad_op": {**full, "fsdp": "shard_grad_op"},
        "hybrid": {**full, "fsdp": "hybrid_shard", "hybrid_shard_size": 1},
        "offload": {**full, "fsdp_offload": "true"},
        "zero0": {**full, "deepspeed": ROOT / "ds_configs" / "zero0.json"},
    }
    outputs = {tmp_path / name: options for name, options in choices.items()}
    run_together("torchrun", shards, outputs)
    for output in outputs:
        assert_same_course(tmp_path / "alone", output)


@pytest.mark.slow
def test_uneven_shards_step_as_the_whole_does(tmp_path):
    """Five and three rows over two ranks; in bfloat16 the ranks round the same numbers."""
    from torch.distributed.fsdp import fully_shard

    def updated(shard, dtype):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3), nn.Linear(3, 1))
        shard(model)
        matrices = [each.weight for each in model if isinstance(each, nn.Linear)]
        rest = [each for each in model.parameters() if each.ndim < 2]
        groups = [*matrix_group(*matrices, decay=0.1), {"params": rest, "weight_decay": 0.0}]
        optimizer = Muon(groups, lr=0.01, dtype=dtype)
        rows = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
        for _ in range(3):
            model(rows).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return list(model.parameters())

    def work(rank):
        torch.set_num_threads(1)
        return [
            [each.full_tensor().tolist() for each in updated(fully_shard, dtype)]
            for dtype in (torch.float32, torch.bfloat16)
        ]

    found = on_forked_ranks(work, tmp_path, num_ranks=2)
    assert found[0] == found[1]
    for listed, dtype, tolerance in zip(found[0], (torch.float32, torch.bfloat16), (1e-6, 2e-4), strict=True):
        for ours, expected in zip(listed, updated(lambda model: model, dtype), strict=True):
            torch.testing.assert_close(torch.tensor(ours), expected.detach(), rtol=1e-5, atol=tolerance)
