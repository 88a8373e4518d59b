"""The engines themselves, on two ranks: what they hold against the estimate, and updates that are not finite."""

from __future__ import annotations

import pytest
import torch
from pretraining_runs import ROOT, on_forked_ranks
from tiny_encoder import built_model

from pretraining.engines.build import build_engine
from pretraining.engines.deepspeed_config import load_config
from pretraining.engines.engine import EngineOptions
from pretraining.engines.updating.optimizers import OptimizerOptions
from pretraining.model.memory import Sharding, count_parameters, model_states
from runtime.processes.ranks import Ranks

SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
MODES = ("zero1", "zero2", "zero3", "full_shard", "shard_grad_op", "hybrid_shard")
CHOICES = (
    *((mode, "adamw") for mode in ("zero0", *MODES)),
    *((mode, "lamb") for mode in ("zero0", "full_shard")),
)
# Engines pad every tensor or group to the ranks, and keep a step counter for each.
SLACK = 1.02


def model(attention="sdpa"):
    overrides = "num_hidden_layers=2,hidden_size=64,num_attention_heads=2,intermediate_size=96"
    return built_model(
        "modernbert-tiny",
        vocab_size=101,
        special_ids=SPECIAL_IDS,
        max_seq_length=16,
        config_overrides=overrides,
        attn_implementation=attention,
    )


def inputs():
    positions = torch.tensor([[1, 2]] * 4)
    ids = torch.arange(64).reshape(4, 16)
    return {"input_ids": ids, "mask_positions": positions, "mask_labels": positions, "mask_weights": torch.ones(4, 2)}


def padded(number):
    """The same rows, of which the first `number` end in four padding tokens."""
    mask = torch.ones(4, 16, dtype=torch.int64)
    mask[:number, -4:] = 0
    return {**inputs(), "attention_mask": mask}


def num_bytes(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def held(engine, mode):
    """Bytes of weights, fp32 masters and moments that this rank keeps between updates."""
    optimizer = engine.optimizer
    if not mode.startswith("zero"):
        states = [value for state in optimizer.state.values() for value in state.values()]
        local = [value.to_local() for value in states if hasattr(value, "to_local")]
        return {"weights": num_bytes(p.to_local() for p in engine.module.parameters()), "moments": num_bytes(local)}
    masters = optimizer.fp32_partitioned_groups_flat if mode == "zero3" else optimizer.single_partition_of_fp32_groups
    moments = [v for state in optimizer.optimizer.state.values() for k, v in state.items() if k != "step"]
    weights = [p.ds_tensor for p in engine.module.parameters()] if mode == "zero3" else engine.module.parameters()
    return {"weights": num_bytes(weights), "fp32 masters": num_bytes(masters), "moments": num_bytes(moments)}


def engine_of(mode, rank, **options):
    content = load_config(ROOT / "ds_configs" / f"{mode}.json") if mode.startswith("zero") else None
    settings = EngineOptions(deepspeed=content, fsdp="full_shard" if content else mode, **options)
    return build_engine(model(), settings, ranks=Ranks(rank, rank, 2, 2), device=torch.device("cpu"))


@pytest.mark.parametrize("norm", [-1.0, float("nan")])
def test_a_clipping_norm_below_zero_is_refused(norm):
    with pytest.raises(AssertionError):
        EngineOptions(max_grad_norm=norm)


@pytest.mark.slow
def test_an_update_that_is_not_finite_changes_nothing(tmp_path):
    """Not a weight, not a moment, not a step counter, on any engine; only one rank's loss is at fault."""

    def update(engine, factor):
        engine.backward(engine(**inputs())["loss_sum"] * factor, last=True)
        return float(engine.step(1e-3))

    def state(engine):
        return {name: tensor.clone() for name, tensor in engine.state_tensors()}, engine.optimizer_steps()

    def work(rank):
        torch.set_num_threads(1)
        found = {}
        for mode, optimizer in CHOICES:
            engine = engine_of(mode, rank, optimizer=OptimizerOptions(name=optimizer))
            norms = [update(engine, 1.0)]
            before, steps = state(engine)
            norms.append(update(engine, float("nan") if rank else 1.0))
            after, steps_after = state(engine)
            norms.append(update(engine, 1.0))
            later, _ = state(engine)
            same = all(after[name].equal(tensor) for name, tensor in before.items())
            moved = any(not later[name].equal(tensor) for name, tensor in before.items())
            found[f"{mode} {optimizer}"] = [
                *(bool(torch.isfinite(torch.tensor(norm))) for norm in norms),
                *(same, steps == steps_after == 1, moved, before.keys() == after.keys(), len(before) > 20),
            ]
        return found

    for found in on_forked_ranks(work, tmp_path, num_ranks=2):
        assert found == {key: [True, False, True, *[True] * 5] for key in found}
        assert len(found) == len(CHOICES)


@pytest.mark.slow
@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 2e-3)])
def test_weights_are_gathered_alike_where_one_rank_has_padded_rows(tmp_path, bf16, tolerance):
    """Only that rank makes a mask, whose type must not be read from a weight: ZeRO-3 would gather it on one rank."""

    def work(rank):
        torch.set_num_threads(1)
        found = {}
        for mode in ("zero2", "zero3"):
            content = load_config(ROOT / "ds_configs" / f"{mode}.json")
            content["zero_optimization"]["stage3_param_persistence_threshold"] = 0
            options = EngineOptions(deepspeed=content, bf16=bf16, gradient_accumulation_steps=2)
            engine = build_engine(model("eager"), options, ranks=Ranks(rank, rank, 2, 2), device=torch.device("cpu"))
            with torch.no_grad():
                figures = [float(engine(**inputs())["loss_sum"])]
            for first, second in ((padded(2), inputs()), (inputs(), padded(1))):
                for number, batch in enumerate((inputs(), first) if rank else (second, inputs())):
                    loss = engine(**batch)["loss_sum"] / 8
                    engine.backward(loss, last=number == 1)
                    figures.append(float(loss.detach()))
                figures.append(float(engine.step(1e-3)))
            found[mode] = figures
        return found

    for found in on_forked_ranks(work, tmp_path, num_ranks=2):
        assert len(found["zero3"]) == 7
        assert found["zero3"] == pytest.approx(found["zero2"], rel=tolerance)


@pytest.mark.slow
def test_estimated_states_are_those_of_the_engines(tmp_path):
    def work(rank):
        torch.set_num_threads(1)
        found = {}
        for mode in MODES:
            engine = engine_of(mode, rank)
            engine.backward(engine(**inputs())["loss_sum"], last=True)
            engine.step(1e-3)
            found[mode] = held(engine, mode)
        return found

    counts = count_parameters(model())
    for found in on_forked_ranks(work, tmp_path, num_ranks=2):
        for mode in MODES:
            estimate = model_states(counts, Sharding(mode, 2)).device
            for name, size in found[mode].items():
                assert estimate[name] / SLACK <= size <= estimate[name] * SLACK, (mode, name, size, estimate[name])
