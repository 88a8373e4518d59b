"""The plan: what follows from options, shards and ranks, and every contradiction between them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from pretraining_runs import ROOT, TINY, write_shards
from transformers import AutoConfig

from pretraining.checkpoints.run_file import RUN_NAME
from pretraining.checks import find_problems, find_warnings, padding_warning
from pretraining.plan.identity import identity_of
from pretraining.plan.lengths import parse_length_schedule
from pretraining.plan.memory_advice import OutOfMemory, advice, explained
from pretraining.plan.options import PretrainingOptions, with_defaults
from pretraining.plan.plan import Plan
from pretraining.plan.table import plan_lines
from runtime.processes.ranks import Ranks
from shards.storage.manifest import read_manifest

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture
def plan(shards, tmp_path):
    def make(*, num_ranks=2, **options):
        places = {"shards": str(shards), "output_dir": str(tmp_path / "run")}  # the default one may hold a real run
        chosen = {**TINY, "series": "2", "disable_tqdm": True, **places, **options}
        return Plan(
            with_defaults(PretrainingOptions(**chosen)), read_manifest(shards), Ranks(0, 0, num_ranks, num_ranks), CPU
        )

    return make


@pytest.mark.parametrize(("capability", "expected"), [(7, False), (8, True), (9, True)])
def test_bf16_auto_is_bf16_where_the_hardware_has_it(plan, monkeypatch, capability, expected):
    """A V100 (7.0) and a T4 (7.5) only emulate it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=capability))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    made = replace(plan(bf16="auto"), device=torch.device("cuda", 0))
    assert made.bf16 is expected
    assert replace(plan(bf16="true"), device=torch.device("cuda", 0)).bf16
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert not plan(bf16="auto").bf16  # the CPU, without units for it
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert plan(bf16="auto").bf16
    assert "AVX-512 BF16" in "\n".join(plan_lines(plan(bf16="auto")))
    said = [text for text in find_warnings(made) if "--fp16 computes in fp16 with loss scaling" in text]
    assert len(said) == (not expected)


def test_fp16_is_the_precision_of_every_part_of_the_plan(plan, monkeypatch):
    monkeypatch.setattr("pretraining.engines.precision.computes_fp16", lambda device_type: True)
    made = plan(bf16="auto", fp16=True)
    assert (made.bf16, made.engine.half, made.sharding.half) == (False, torch.float16, "fp16")
    assert any("fp16 with loss scaling" in line for line in plan_lines(made))
    assert any("--fp16 is for GPUs without bf16" in text for text in find_warnings(made))
    for number in (1, 2, 3):
        assert not find_problems(plan(bf16="auto", fp16=True, deepspeed=zero(number)))
    refused = find_problems(plan(bf16="auto", fp16=True, deepspeed=zero(0)))
    assert refused
    assert all("use stage 1" in text for text in refused)


def test_muon_is_planned_where_matrices_are_whole(plan):
    for options in ({}, {"deepspeed": zero(0)}, {"fsdp": "hybrid_shard"}, {"num_ranks": 1}):
        made = plan(optimizer="muon", muon_learning_rate=0.01, learning_rate_rule="linear", **options)
        assert not find_problems(made)
        assert made.optimizer.muon_learning_rate == pytest.approx(0.01 * 12 / 48)
        assert made.optimizer.matrix_rate_scale == pytest.approx(0.01 / 5e-3)
        assert any("muon for the layers' matrices (peak learning rate 0.0025)" in line for line in plan_lines(made))
        assert made.memory.device["moments"] < plan(**options).memory.device["moments"]
    (refused,) = find_problems(plan(optimizer="muon", deepspeed=zero(2)))
    assert "has only slices of them: use stage 0, or FSDP2" in refused
    assert "--deepspeed ds_configs" not in advice(plan(optimizer="muon", deepspeed=zero(0)))
    assert "no --deepspeed, which is FSDP2" in advice(plan(optimizer="muon", deepspeed=zero(0)))


def zero(number):
    return str(ROOT / "ds_configs" / f"zero{number}.json")


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("micro_batch", [0, 1, 5])
def test_the_update_is_the_same_however_it_is_cut(plan, num_ranks, micro_batch):
    made = plan(num_ranks=num_ranks, per_device_train_batch_size=micro_batch)
    assert find_problems(made) == []
    assert made.rows_per_rank * num_ranks >= 12
    assert made.accumulation * made.micro_batch_rows >= made.rows_per_rank
    assert made.tokens_per_update == 384
    assert made.flops_of_update(0) == plan(num_ranks=1).flops_of_update(0)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"zero_optimization": 2}, "zero_optimization is 2: it must be an object"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": "cpu"}}, "offload_optimizer is 'cpu': it must be"),
        ({"optimizer": "Adam"}, "optimizer is 'Adam': it must be an object"),
        ({"optimizer": {"type": "Adam", "params": 3}}, "optimizer.params is 3: it must be an object"),
    ],
)
def test_a_json_of_the_wrong_shape_is_answered_in_words(plan, tmp_path, content, complaint):
    config = tmp_path / "zero.json"
    config.write_text(json.dumps(content))
    made = plan(deepspeed=str(config))
    assert complaint in "\n".join(find_problems(made))
    assert made.memory is not None


def test_no_offload_may_be_written_as_null(plan, tmp_path):
    config = tmp_path / "zero.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": 2, "offload_optimizer": None}}))
    assert find_problems(plan(deepspeed=str(config))) == []


def test_accumulation_is_derived_or_checked(plan):
    assert plan(per_device_train_batch_size=2).accumulation == 3
    made = plan(per_device_train_batch_size=0, gradient_accumulation_steps=3)
    assert (made.micro_batch_rows, made.accumulation) == (2, 3)
    refused = plan(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    assert any(
        "--gradient_accumulation_steps 4 contradicts" in text and "it is 3" in text for text in find_problems(refused)
    )


def test_every_contradiction_is_found_at_once(plan, tmp_path):
    config = tmp_path / "zero.json"
    config.write_text(json.dumps({"train_batch_size": 7, "zero_optimizaton": {"stage": 2}}))
    made = plan(
        deepspeed=str(config),
        length_schedule="16:0.5,32:0.6",
        max_seq_length=None,
        decay_fraction=0.9,
        resume_from_checkpoint="/nowhere",
    )
    text = "\n".join(find_problems(made))
    for part in ("sum to 1", "decay_fraction", "/nowhere"):
        assert part in text


def test_batch_sizes_that_contradict_each_other_are_named_with_both_values(plan, tmp_path):
    config = tmp_path / "zero.json"
    config.write_text(
        json.dumps({"train_batch_size": 7, "gradient_accumulation_steps": 9, "zero_optimization": {"stage": 2}})
    )
    text = "\n".join(find_problems(plan(deepspeed=str(config))))
    assert "train_batch_size is 7" in text
    assert "12 by the options" in text
    assert "gradient_accumulation_steps is 9" in text


def test_a_misspelt_key_is_answered_with_the_nearest(plan, tmp_path):
    config = tmp_path / "zero.json"
    config.write_text(json.dumps({"zero_optimizaton": {"stage": 2}}))
    assert "did you mean zero_optimization" in "\n".join(find_problems(plan(deepspeed=str(config))))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"objective": "mlm+nsp"}, "next-sentence head"),
        ({"series": "1e9"}, "beyond the budget"),
        ({"series": "999", "series_ratio": 3.0}, "--series of 999 budgets with --series_ratio 3.0"),
        ({"bf16": "true", "deepspeed": zero(0)}, "stage 0"),
        ({"deepspeed": "gone.json"}, "is not a file"),
        ({"deepspeed": zero(2), "fsdp_offload": True}, "fsdp_offload"),
        ({"deepspeed": zero(2), "fsdp": "shard_grad_op"}, "--fsdp shard_grad_op belongs to FSDP2"),
        ({"length_schedule": "0:0.5,64:0.5", "max_seq_length": None}, "--length_schedule"),
        ({"model": "bert-huge"}, "bert-huge"),
        ({"optimizer": "lamb", "deepspeed": zero(2)}, "LAMB"),
        ({"length_schedule": "16:1.5,32:-0.5", "max_seq_length": None}, "sum to 1"),
        (
            {"budget_tokens": None, "budget_hours": 1.0, "length_schedule": "16:1", "max_seq_length": None},
            "--budget_flops in place of --budget_hours",
        ),
    ],
)
def test_each_contradiction_names_its_remedy(plan, options, complaint):
    assert complaint in "\n".join(find_problems(plan(**options)))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"series": "999"}, "of --series 999, 5 of 999 budgets fit: use --series 5"),
        ({"series": "6900,7e3"}, "budgets 6,900 and 7,000 lie less than one update (384 tokens) apart"),
        ({"series": "10,300,5e3,7e3"}, "3 of 4 budgets fit: leave out the smaller of each such pair"),
        ({"budget_tokens": None, "budget_flops": 2e11, "series": "40"}, "use --series 12"),
    ],
)
def test_budgets_less_than_an_update_apart_are_no_different_checkpoints(plan, options, complaint):
    assert complaint in "\n".join(find_problems(plan(**options)))


def test_as_many_budgets_as_are_said_to_fit_are_a_series(plan):
    assert find_problems(plan(series="5")) == []
    assert "use --series 5" in "\n".join(find_problems(plan(series="6")))
    assert find_problems(plan(series="300,5e3,7e3")) == []


def test_budgets_of_hours_and_a_single_small_one_are_no_contradiction(plan):
    assert find_problems(plan(budget_tokens=None, budget_hours=1e-6, series="30")) == []
    assert find_problems(plan(budget_tokens=10.0, series="0")) == []


def test_the_table_says_what_will_be_done(plan):
    text = "\n".join(plan_lines(plan(deepspeed=zero(2))))
    assert "cpu, fp32 (--bf16 false), attention sdpa, compilation false" in text
    for part in (
        "DeepSpeed zero2",
        "torch adamw",
        "12 rows, 384 tokens",
        "0, 3,500, 7,000 tokens",
        "GB per rank",
        "19 updates of the trunk, 24 in all",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "torch adamw"),
        ({"optimizer": "lamb"}, "torch lamb"),
        ({"deepspeed": zero(3)}, "torch adamw"),
        ({"deepspeed": zero("2_offload")}, "DeepSpeed CPU adamw"),
    ],
)
def test_auto_names_the_optimizer_that_is_used(plan, options, name):
    assert plan(**options).optimizer_title == name


def test_an_optimizer_in_the_json_is_honoured(plan, tmp_path):
    config = tmp_path / "zero.json"
    config.write_text(
        json.dumps({"optimizer": {"type": "AdamW", "params": {"torch_adam": True}}, "zero_optimization": {"stage": 2}})
    )
    assert plan(deepspeed=str(config)).optimizer_title == "DeepSpeed AdamW"


def test_only_other_architectures_run_their_head_on_every_position(plan):
    for model in ("bert-tiny", "modernbert-tiny"):
        assert not any("its head runs" in text for text in find_warnings(plan(model=model, config_overrides=None)))


def test_warnings_name_repeated_data_and_lengths_that_are_never_reached(plan):
    assert find_warnings(plan(series="1e4", budget_tokens=2e4)) == []
    assert any("passes over the shards" in text for text in find_warnings(plan(budget_tokens=1e6)))
    scheduled = plan(length_schedule="16:0.8,32:0.2", max_seq_length=None, series="2")
    assert any("before length 32 begins" in text for text in find_warnings(scheduled))


def test_a_block_that_rows_cut_badly_is_warned_of(plan):
    assert not any("padding" in text for text in find_warnings(plan()))
    assert any("padding" in text for text in find_warnings(plan(max_seq_length=300)))
    assert padding_warning(65_536, 126) is None
    assert padding_warning(65_536, 8_190) == (
        "11% of the rows is padding: a block of 65,536 tokens is 9 rows of 8,190; build the shards with "
        "--block_tokens 65520"
    )
    assert "--block_tokens 1000" in padding_warning(512, 1_000)


def test_a_length_schedule_shares_out_the_tokens(plan):
    made = plan(length_schedule="16:0.75,32:0.25", max_seq_length=None, budget_tokens=1e5)
    (first, short), (second, long) = made.lengths
    assert (first, short, long) == (0, 16, 32)
    sequences, length, _ = made.shape_at(0)
    assert sequences * length * second == pytest.approx(0.75e5, rel=0.02)
    assert second % 12 == 0


def test_positions_that_no_sequence_has_reached_are_counted(plan):
    made = plan(length_schedule="16:0.75,32:0.25", max_seq_length=None, budget_tokens=1e5)
    second = made.lengths[1][0]
    assert [made.untrained_positions(rows) for rows in (12, second, second + 12)] == [16, 16, 0]
    assert made.untrained_positions(0) == 0  # scratch: nothing is trained there at all
    assert plan().untrained_positions(12) == 0


def test_a_length_schedule_shares_out_flops(plan):
    changes = {"budget_tokens": None, "max_seq_length": None}
    made = plan(length_schedule="16:0.6,32:0.3,24:0.1", budget_flops=2e11, **changes)
    assert find_problems(made) == []
    firsts = [first for first, _ in made.lengths]
    updates = [(later - first) / 12 for first, later in pairwise(firsts)]
    spent = [count * made.flops_of_update(first) for count, first in zip(updates, firsts, strict=False)]
    assert spent == pytest.approx([1.2e11, 0.6e11], rel=0.01)
    assert [length for _, length in made.lengths] == [16, 32, 24]
    short = plan(length_schedule="16:0.6,32:0.4", budget_flops=2e11, series="2", **changes)
    assert any("100,000,000,000 end before length 32 begins" in text for text in find_warnings(short))


def test_lengths_for_pairs_count_their_third_special_token(plan):
    bert = {"model": "bert-tiny", "config_overrides": None, "max_seq_length": None, "length_schedule": "16:0.5,29:0.5"}
    assert plan(**bert).lengths != plan(**bert, objective="mlm+nsp").lengths


@pytest.mark.parametrize("text", ["128", "128:x", "a:1", "128:0.9,512:0.2", "128:1.5,512:-0.5", "128:nan", ""])
def test_a_schedule_that_shares_nothing_out_is_refused(text):
    with pytest.raises(ValueError, match="write lengths and shares"):
        parse_length_schedule(text)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), OSError(12, "memory")])
def test_out_of_memory_says_what_to_lower_with_numbers(plan, error):
    made = plan(deepspeed=zero(1), per_device_train_batch_size=6)
    with pytest.raises(OutOfMemory, match=r"--per_device_train_batch_size 3 .* GB") as caught, explained(made):
        raise error
    for part in ("--gradient_checkpointing true", "zero2.json", "zero3.json", "activations"):
        assert part in str(caught.value)


def test_other_errors_pass(plan):
    with pytest.raises(OSError, match="another"), explained(plan()):
        raise OSError(28, "another")
    with pytest.raises(RuntimeError, match="shape"), explained(plan()):
        raise RuntimeError("shape mismatch")


def test_advice_never_names_what_is_in_use(plan):
    text = advice(plan(num_ranks=2, gradient_checkpointing=True, per_device_train_batch_size=1))
    assert "--gradient_checkpointing" not in text
    assert "--per_device_train_batch_size" not in text
    assert "--fsdp full_shard:" not in text
    assert "--fsdp full_shard --fsdp_offload true" in text


@pytest.mark.parametrize(
    ("num_ranks", "options", "complaint"),
    [
        (1, {"fsdp_offload": True}, "there is only one"),
        (8, {"fsdp": "hybrid_shard", "hybrid_shard_size": 3, "global_batch_rows": 16}, "does not divide 8 ranks"),
        (64, {"global_batch_rows": 48}, "64 ranks for 48 lanes"),
        (2, {"global_batch_rows": 257}, "2 ranks for 1 lanes"),
    ],
)
def test_what_would_end_a_run_later_is_found_in_the_plan(plan, num_ranks, options, complaint):
    assert complaint in "\n".join(find_problems(plan(num_ranks=num_ranks, **options)))


def test_compiling_without_a_compiler_is_found_in_the_plan(plan, monkeypatch):
    assert find_problems(plan(torch_compile="true")) == []
    monkeypatch.setenv("PATH", "/nowhere")
    assert "--torch_compile needs a C++ compiler" in "\n".join(find_problems(plan(torch_compile="true")))


def test_a_file_in_the_place_of_the_output_directory_is_found_in_the_plan(plan, tmp_path):
    (tmp_path / "file").touch()
    for place in ("file", "file/run"):
        assert "file is a file" in "\n".join(find_problems(plan(output_dir=str(tmp_path / place))))
    assert find_problems(plan(output_dir=str(tmp_path / "new" / "run"))) == []


@pytest.mark.parametrize("named", ["", "checkpoints"])
def test_a_run_s_folder_is_no_checkpoint_but_holds_one(plan, tmp_path, named):
    (tmp_path / "checkpoints" / "step-00000007-001").mkdir(parents=True)
    found = "\n".join(find_problems(plan(resume_from_checkpoint=str(tmp_path / named))))
    assert f"such as {tmp_path / 'checkpoints' / 'step-00000007-001'}" in found


def test_a_reference_batch_without_a_rule_is_warned_of(plan):
    assert any("--reference_batch_rows" in text for text in find_warnings(plan(reference_batch_rows=256)))
    made = plan(reference_batch_rows=256, learning_rate_rule="sqrt")
    assert not any("--reference_batch_rows" in text for text in find_warnings(made))


def test_a_folder_without_a_checkpoint_is_no_place_to_resume_from(plan, tmp_path):
    assert "cannot be resumed from" in "\n".join(
        find_problems(plan(resume_from_checkpoint=str(tmp_path), dry_run=True))
    )


def test_a_source_model_that_cannot_read_the_shards_is_found_in_the_plan(plan, tmp_path):
    from transformers import BertConfig

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    for complaint, settings in (
        ("build the shards with", {"vocab_size": 20}),
        ("lower --max_seq_length", {"vocab_size": 60, "max_position_embeddings": 16}),
    ):
        BertConfig(**small, pad_token_id=0, **settings).save_pretrained(tmp_path)
        source = {"model": None, "config_overrides": None, "model_name_or_path": str(tmp_path)}
        assert complaint in "\n".join(find_problems(plan(**source)))


def test_a_directory_of_another_run_is_found_in_the_plan_and_left_alone(plan, tmp_path):
    here = plan(output_dir=str(tmp_path))
    (tmp_path / RUN_NAME).write_text(json.dumps({"identity": identity_of(here)}))
    before = (tmp_path / RUN_NAME).read_text()
    assert find_problems(here) == []
    other = "\n".join(find_problems(plan(output_dir=str(tmp_path), seed=3)))
    assert "holds another run (seed: 0 there, 3 here)" in other
    assert (tmp_path / RUN_NAME).read_text() == before


@pytest.mark.parametrize(("model_type", "memory"), [("deberta-v2", "GB per rank"), ("xlm", "memory  unknown")])
def test_a_model_that_is_hard_to_trace_has_a_plan(plan, tmp_path, model_type, memory):
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    AutoConfig.for_model(model_type, **shape, vocab_size=60, pad_token_id=0).save_pretrained(tmp_path)
    made = plan(model=None, config_overrides=None, from_config=str(tmp_path))
    assert find_problems(made) == []
    text = "\n".join(plan_lines(made))
    assert memory in text
    warnings = find_warnings(made)
    assert ("unknown" in text) == any("memory is unknown" in warning for warning in warnings)
    head = f"the head of {model_type} runs on all 32 positions of a sequence, not on the 6 "
    assert any(warning.startswith(head) for warning in warnings)
    assert made.flops_of_update(0) > 0
    assert "--per_device_train_batch_size 1" in advice(made)
