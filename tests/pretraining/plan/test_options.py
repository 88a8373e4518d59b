"""The options of a run: defaults, what identifies it, and everything wrong with them at once."""

import math

import pytest

from pretraining.plan.options import PretrainingOptions, with_defaults


def test_without_shards_it_is_the_small_world():
    options = with_defaults(PretrainingOptions())
    assert (options.model, options.budget_tokens, options.global_batch_rows) == ("modernbert-tiny", 2_400_000, 16)


def test_shards_take_the_defaults_of_real_text():
    options = with_defaults(PretrainingOptions(shards="there"))
    assert (options.model, options.budget_tokens, options.config_overrides) == ("modernbert-base", None, None)


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"model": "bert-mini"}, "config_overrides", None),
        ({"model_name_or_path": "there"}, "model", None),
        ({"from_config": "there"}, "model", None),
        ({"budget_hours": 1.0}, "budget_tokens", None),
        ({"budget_flops": 1e15}, "budget_tokens", None),
        ({"length_schedule": "32:0.5,64:0.5"}, "max_seq_length", None),
        ({"learning_rate": 1e-4}, "learning_rate", 1e-4),
    ],
)
def test_a_default_gives_way_to_what_was_named(given, name, value):
    assert getattr(with_defaults(PretrainingOptions(**given)), name) == value


def test_everything_wrong_is_said_at_once():
    with pytest.raises(ValueError, match="exclude each other") as caught:
        PretrainingOptions(budget_tokens=1, budget_hours=1, bf16="yes", decay="steps", global_batch_rows=-1)
    assert all(f"--{name}" in str(caught.value) for name in ("bf16", "decay", "global_batch_rows"))


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("warmup_fraction", 0.2, "use at least 0 and at most 0.1, a share of the smallest budget"),
        ("decay_fraction", 1.0, "use above 0 and below 1, a share of a budget"),
        ("validation_rows", 0, "use at least 1"),
        ("save_total_limit", 0, "use at least 1"),
        ("max_seq_length", 3, "use at least 4 and at most 65536"),
        ("budget_tokens", 0.0, "use a finite number, above 0"),
        ("budget_hours", math.inf, "use a finite number, above 0"),
        ("learning_rate", -1.0, "use a finite number, at least 0"),
        ("mask_rate", 1.0, "use above 0 and below 1"),
        ("adam_beta2", 1.0, "use at least 0 and below 1"),
        ("seed", -1, "use at least 0 and below 9223372036854775808"),
        ("fsdp", "none", "use one of full_shard, shard_grad_op, hybrid_shard"),
        ("attn_implementation", "flash", "use one of sdpa, flash_attention_2, eager, auto"),
        ("report_to", "tensorbord", "use one of tensorboard, wandb, mlflow, none"),
        ("objective", "clm", "use one of mlm, mlm\\+nsp"),
        ("resume_from_checkpoint", "never", "this value was renamed to false"),
    ],
)
def test_a_value_outside_its_range_is_refused_with_the_range(name, value, rule):
    with pytest.raises(ValueError, match=f"^--{name} {value}: {rule}"):
        PretrainingOptions(**{name: value})


@pytest.mark.parametrize(
    "given",
    [
        {"model": "bert-tiny", "from_config": "there"},
        {"max_seq_length": 64, "length_schedule": "64:1"},
        {"hybrid_shard_size": 2},
        {"mask_token_rate": 0.9, "random_token_rate": 0.5},
    ],
)
def test_contradictions_are_refused(given):
    with pytest.raises(ValueError, match="--"):
        PretrainingOptions(**given)


def test_how_it_is_computed_is_no_part_of_the_run():
    plain, moved = (
        PretrainingOptions(),
        PretrainingOptions(output_dir="elsewhere", deepspeed="zero3.json", per_device_train_batch_size=2, save_steps=5),
    )
    assert plain.identity() == moved.identity()
    assert plain.identity() != PretrainingOptions(seed=1).identity()
    assert plain.identity() != PretrainingOptions(global_batch_rows=96).identity()
