"""fp16: the scale's rule beside torch's, injected infinities in both engines, what counts as skipped, resumption."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from pretraining_runs import (
    ROOT,
    assert_same_course,
    checkpoints,
    in_process,
    journal,
    on_forked_ranks,
    run_together,
    write_shards,
)
from tiny_encoder import built_model
from torch import nn

from pretraining.engines.build import build_engine
from pretraining.engines.deepspeed_config import load_config, resolve_config
from pretraining.engines.engine import EngineOptions
from pretraining.engines.updating import loss_scaling
from pretraining.engines.updating.loss_scaling import DynamicLossScale
from pretraining.engines.updating.optimizers import OptimizerOptions
from runtime.machine import computes_fp16
from runtime.processes.ranks import Ranks

NEEDS_UNITS = pytest.mark.skipif(not computes_fp16("cpu"), reason="DeepSpeed refuses fp16 on a processor without units")

SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
OVERRIDES = "num_hidden_layers=2,hidden_size=64,num_attention_heads=2,intermediate_size=96"
MODES = ("zero1", "zero2", "zero3", "full_shard", "shard_grad_op")
FP16 = {"fp16": "true", "bf16": "auto"}


def engine_of(mode="full_shard", ranks=None, **options):
    model = built_model(
        "modernbert-tiny", vocab_size=101, special_ids=SPECIAL_IDS, max_seq_length=16, config_overrides=OVERRIDES
    )
    content = load_config(ROOT / "ds_configs" / f"{mode}.json") if mode.startswith("zero") else None
    settings = EngineOptions(deepspeed=content, fsdp="full_shard" if content else mode, **{"fp16": True, **options})
    return build_engine(model, settings, ranks=ranks or Ranks(), device=torch.device("cpu"))


def inputs():
    positions = torch.tensor([[1, 2]] * 4)
    ids = torch.arange(64).reshape(4, 16)
    return {"input_ids": ids, "mask_positions": positions, "mask_labels": positions, "mask_weights": torch.ones(4, 2)}


def update(engine, factor=1.0):
    engine.backward(engine(**inputs())["loss_sum"] / 8 * factor, last=True)
    return float(engine.step(1e-3))


def state(engine):
    return {name: tensor.clone() for name, tensor in engine.state_tensors()}, engine.optimizer_steps()


def test_the_scale_is_that_of_torch(monkeypatch):
    """Infinities at some of forty updates, and a doubling after every third good one in a row."""
    monkeypatch.setattr(loss_scaling, "GROWTH_INTERVAL", 3)
    ours, theirs = DynamicLossScale(torch.device("cpu")), torch.amp.GradScaler("cpu", growth_interval=3)
    weight = nn.Parameter(torch.ones(1))
    optimizer, scales = torch.optim.SGD([weight], lr=0.0), []
    for step in range(40):
        weight.grad = theirs.scale(torch.tensor([float("inf") if step % 11 in (0, 1, 6) else 1.0]))
        assert float(ours.scale) == theirs.get_scale()
        ours.unscale([weight])
        ours.update(~torch.isfinite(weight.grad).all())
        weight.grad = weight.grad * theirs.get_scale()
        theirs.step(optimizer)
        theirs.update()
        scales.append(float(ours.scale))
    assert len(set(scales)) == 5
    resumed = DynamicLossScale(torch.device("cpu"))
    resumed.load(json.loads(json.dumps(ours.state())))
    for _ in range(3):
        ours.update(torch.tensor(False))
        resumed.update(torch.tensor(False))
        assert ours.state() == resumed.state()


def test_it_does_not_fall_below_one_nor_rise_to_infinity():
    scale = DynamicLossScale(torch.device("cpu"))
    for _ in range(20):
        scale.update(torch.tensor(True))
    assert scale.state()["scale"] == 1.0
    scale.load({"scale": 2.0**127, "good_updates": 1999, "hysteresis": 1})
    scale.update(torch.tensor(False))
    assert scale.state() == {"scale": 2.0**127, "good_updates": 0, "hysteresis": 1}


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "lamb"])
def test_updates_are_those_of_fp32_and_clipped_after_unscaling(optimizer):
    """The gradient norm is the unscaled one; a smaller scale changes nothing, and at 65,536 fp16 would overflow."""
    options = {"optimizer": OptimizerOptions(name=optimizer), "max_grad_norm": 0.1}
    plain, half, lower = engine_of(fp16=False, **options), engine_of(**options), engine_of(**options)
    for engine, scale in ((half, 1024.0), (lower, 64.0)):
        engine.loss_scaling.load({"scale": scale, "good_updates": 0, "hysteresis": 1})
    for _ in range(5):
        norms = [update(engine) for engine in (plain, half, lower)]
        assert norms[1:] == pytest.approx([norms[0]] * 2, rel=0.02)
        assert norms[0] > 0.1
    one, two, three = (state(engine)[0] for engine in (plain, half, lower))
    for name, tensor in one.items():
        if name.endswith("/weight"):
            torch.testing.assert_close(two[name], tensor, rtol=0, atol=2e-2 if optimizer == "muon" else 5e-3)
            torch.testing.assert_close(three[name], two[name], rtol=0, atol=2e-2 if optimizer == "muon" else 5e-3)


def test_small_gradients_need_the_scale():
    """Of a loss so small that its gradients round to zero in fp16, the scale keeps them."""
    norms = []
    for scale in (1.0, 2.0**16):
        engine = engine_of()
        engine.loss_scaling.load({"scale": scale, "good_updates": 0, "hysteresis": 1})
        norms.append(update(engine, 1e-6))
    reference = update(engine_of(fp16=False), 1e-6)
    assert norms[0] < 0.9 * reference
    assert norms[1] == pytest.approx(reference, rel=0.02)


@NEEDS_UNITS
@pytest.mark.slow
def test_one_ranks_infinity_skips_the_update_and_halves_the_scale_on_all(tmp_path):
    def work(rank):
        torch.set_num_threads(1)
        found = {}
        for mode in MODES:
            engine = engine_of(mode, Ranks(rank, rank, 2, 2))
            engine.loss_scaling.load({"scale": 1024.0, "good_updates": 7, "hysteresis": 1})
            first = update(engine)
            before, steps = state(engine)
            second = update(engine, float("inf") if rank else 1.0)
            after, steps_after = state(engine)
            scale = engine.loss_scaling.state()
            engine.loss_scaling.load({"scale": 1024.0, "good_updates": 2000, "hysteresis": 1})
            norm = update(engine)
            grown = engine.loss_scaling.state()["scale"]
            found[mode] = [
                bool(torch.isfinite(torch.tensor(first))),
                bool(torch.isfinite(torch.tensor(second))),
                all(after[name].equal(tensor) for name, tensor in before.items()),
                steps == steps_after == 1,
                scale["scale"],
                scale["good_updates"],
                grown,
                norm,
            ]
        return found

    one, two = on_forked_ranks(work, tmp_path, num_ranks=2)
    assert one == two
    assert list(one) == list(MODES)
    norms = [figures.pop() for figures in one.values()]
    assert one == {mode: [True, False, True, True, 512.0, 0, 2048.0] for mode in MODES}
    # The update in which the scale doubles uses whole gradients.
    assert norms == pytest.approx([norms[0]] * len(MODES), rel=0.02)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"))


def test_halvings_do_not_end_a_run_and_what_follows_does(shards, tmp_path, capsys):
    options = {**FP16, "max_skipped_updates": 3, "save_steps": 1}
    in_process(shards, tmp_path / "run", options, fault="update.loss:1:nan_on", status=1)
    lines = journal(tmp_path / "run")
    assert [line["skipped"] for line in lines] == ["loss scale"] * 16 + [True] * 3
    assert [line["loss_scale"] for line in lines] == [2.0 ** max(0, 16 - number) for number in range(19)]
    assert all(line["gradient_norm"] is None for line in lines)
    assert len({line["learning_rate"] for line in lines}) > 1
    error = capsys.readouterr()
    assert "3 updates in a row had a loss or gradient that is not finite, up to update 19" in error.err + error.out


def test_a_resumed_run_is_bit_identical_with_its_scale(shards, tmp_path, capsys):
    """An infinity in the fifth update (of four micro-batches each): later checkpoints hold the halved scale."""
    options = {**FP16, "save_steps": 3, "save_total_limit": 9}
    in_process(shards, tmp_path / "whole", options, fault="update.loss:18:nan")
    printed = capsys.readouterr()
    assert "fp16 with loss scaling" in printed.out
    assert "--fp16 is for GPUs without bf16" in printed.out
    assert "update 5 was skipped: the loss scale 65536 is halved" in printed.out + printed.err
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in checkpoints(tmp_path / "cut"):
        if name > "step-00000009":
            shutil.rmtree(tmp_path / "cut" / "checkpoints" / name)
    (kept,) = [name for name in checkpoints(tmp_path / "cut") if name.startswith("step-00000006")]
    stored = json.loads((tmp_path / "cut" / "checkpoints" / kept / "state.json").read_text())["loss_scaling"]
    assert stored == {"scale": 2.0**15, "good_updates": 1, "hysteresis": 1}
    shutil.rmtree(tmp_path / "cut" / "series")
    in_process(shards, tmp_path / "cut", options)
    lines = [journal(tmp_path / run) for run in ("whole", "cut")]
    assert len(lines[0]) == 20
    for one, two in zip(*lines, strict=True):
        for name in ("loss", "gradient_norm", "loss_scale", "skipped"):
            assert one.get(name) == two.get(name)


def test_fp16_agrees_with_fp32_over_a_run(shards, tmp_path):
    in_process(shards, tmp_path / "fp32")
    in_process(shards, tmp_path / "fp16", FP16)
    assert_same_course(tmp_path / "fp32", tmp_path / "fp16", tolerance=0.02)
    assert {line["loss_scale"] for line in journal(tmp_path / "fp16")} == {2.0**16}
    assert "loss_scale" not in journal(tmp_path / "fp32")[0]


def test_two_precisions_are_refused_and_another_one_is_another_run(shards, tmp_path, capsys):
    with pytest.raises(SystemExit):
        in_process(shards, tmp_path / "run", {"fp16": "true", "bf16": "true"})
    assert "--fp16 and --bf16 true are two precisions: give one" in capsys.readouterr().err
    in_process(shards, tmp_path / "run", {"budget_tokens": 800})
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["identity"]
    assert not {"fp16", "muon_learning_rate"} & set(recorded)  # as in runs before these options
    in_process(shards, tmp_path / "run", {**FP16, "budget_tokens": 800, "dry_run": "true"}, status=2)
    assert "fp16: False there, True here" in capsys.readouterr().err
    in_process(shards, tmp_path / "half", {**FP16, "budget_tokens": 800})
    in_process(shards, tmp_path / "half", {"budget_tokens": 800}, status=2)
    assert "fp16: True there, False here" in capsys.readouterr().err


def resolved(config, **options):
    settings = {"bf16": False, "fp16": True, "optimizer": OptimizerOptions(), **options}
    zero = {"zero_optimization": {"stage": 2}}
    return resolve_config(
        {**zero, **config}, micro_batch_size=1, accumulation=1, world_size=1, clipping=1.0, **settings
    )


def test_the_json_may_leave_the_scale_open_or_set_its_rule():
    rule = {"loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 2000, "hysteresis": 1, "min_loss_scale": 1}
    assert resolved({})["fp16"] == {"enabled": True, **rule}
    assert resolved({"fp16": {"enabled": "auto", "loss_scale": "auto"}})["fp16"] == {"enabled": True, **rule}
    own = {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 12, "hysteresis": 2}
    assert resolved({"fp16": own})["fp16"] == {**rule, **own, "enabled": True}
    assert resolved({})["bf16"]["enabled"] is False
    assert "fp16" not in resolved({"fp16": own}, fp16=False)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"fp16": {"enabled": False}}, 'fp16.enabled is false in the JSON and true by --fp16: write "auto" there'),
        ({"fp16": {"loss_scale": 128}}, "fp16.loss_scale is 128: a fixed scale is not offered; write 0"),
        ({"fp16": {"fp16_master_weights_and_grads": True}}, "weights are trained in fp32, remove the key"),
        ({"zero_optimization": {"stage": 0}}, "--fp16 is given and zero_optimization.stage is 0: .* use stage 1"),
        ({"bf16": {"enabled": True}}, "bf16.enabled is True in the JSON and False by --bf16"),
    ],
)
def test_what_the_json_may_not_say_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        resolved(config)


def test_a_json_with_fp16_needs_the_option():
    with pytest.raises(ValueError, match=r"fp16.enabled is true and --fp16 is not given: give it"):
        resolved({"fp16": {"enabled": True}}, fp16=False)


@NEEDS_UNITS
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stage_trains_as_fp32_does_and_resumes_under_another_engine(shards, tmp_path):
    in_process(shards, tmp_path / "alone", {"series": 2})
    outputs = {}
    for name in ("zero1", "zero2", "zero3"):
        outputs[tmp_path / name] = {**FP16, "series": 2, "deepspeed": ROOT / "ds_configs" / f"{name}.json"}
    outputs[tmp_path / "fsdp"] = {**FP16, "series": 2, "save_steps": 5, "save_total_limit": 9}
    run_together("torchrun", shards, outputs)
    for output in outputs:
        assert_same_course(tmp_path / "alone", output, tolerance=0.05)
        assert {line["loss_scale"] for line in journal(output)} == {2.0**16}
    for name in checkpoints(tmp_path / "fsdp"):
        if name > "step-00000011":
            shutil.rmtree(tmp_path / "fsdp" / "checkpoints" / name)
    before = journal(tmp_path / "fsdp")
    run_together("torchrun", shards, {tmp_path / "fsdp": outputs[tmp_path / "zero2"]})
    after = journal(tmp_path / "fsdp")
    assert [line["serial"] for line in after] == [line["serial"] for line in before]
    assert [line["loss"] for line in after] == pytest.approx([line["loss"] for line in before], abs=0.05)
    last = checkpoints(tmp_path / "fsdp")[-1]
    stored = json.loads((tmp_path / "fsdp" / "checkpoints" / last / "state.json").read_text())["loss_scaling"]
    trunk = [line for line in after if line["segment"] == "trunk"]
    assert stored == {"scale": 2.0**16, "good_updates": len(trunk), "hysteresis": 1}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fp16_agrees_with_fp32_on_a_gpu(shards, tmp_path):
    in_process(shards, tmp_path / "fp32")
    in_process(shards, tmp_path / "fp16", FP16)
    assert_same_course(tmp_path / "fp32", tmp_path / "fp16", tolerance=0.05)
    skipped = [line for line in journal(tmp_path / "fp16") if line.get("skipped")]
    assert all(line["skipped"] == "loss scale" for line in skipped)
