"""The options of `launch/pretrain.py` and their defaults on the embedded small world and on real shards."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

from pretraining.engines.optimizers import LEARNING_RATE_RULES, OPTIMIZER_NAMES
from pretraining.engines.schedule import DECAYS
from runtime.options.command_line import COMMAS
from shards.streaming.options import OBJECTIVES

# What only records where and how a run computes, not what it computes: free to change when it is resumed.
NOT_PART_OF_THE_RUN = frozenset(
    (
        "shards",
        "output_dir",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "deepspeed",
        "fsdp",
        "fsdp_offload",
        "hybrid_shard_size",
        "torch_compile",
        "gradient_checkpointing",
        "attn_implementation",
        "dataloader_num_workers",
        "verify",
        "save_steps",
        "save_minutes",
        "save_total_limit",
        "resume_from_checkpoint",
        "report_to",
        "hang_timeout_seconds",
        "max_skipped_updates",
        "dry_run",
        "overfit_gate",
        "bf16",
        "disable_tqdm",
    )
)
CHOICES = {
    "objective": OBJECTIVES,
    "bf16": ("auto", "true", "false"),
    "decay": DECAYS,
    "learning_rate_rule": LEARNING_RATE_RULES,
    "optimizer": ("auto", *OPTIMIZER_NAMES),
    "verify": ("sizes", "full"),
}
SMALLEST = {
    "global_batch_rows": 0,
    "per_device_train_batch_size": 0,
    "gradient_accumulation_steps": 0,
    "reference_batch_rows": 1,
    "max_grad_norm": 0,
    "validation_rows": 1,
    "hybrid_shard_size": 0,
    "dataloader_num_workers": 0,
    "save_steps": 0,
    "save_minutes": 0,
    "save_total_limit": 1,
    "hang_timeout_seconds": 0,
    "max_skipped_updates": 1,
}


def option(default: Any, text: str, **extra: Any) -> Any:
    return field(default=default, metadata={"help": text, **extra})


@dataclass(frozen=True)
class PretrainingOptions:
    """Options that are None take a default that depends on the data: see SMALL_WORLD and REAL_SHARDS."""

    shards: str | None = option(
        None, "directory made by launch/build_shards.py, or its https address; none: the embedded small world"
    )
    output_dir: str = option("runs/pretrain", "where journal, checkpoints and the series go")

    model: str | None = option(None, "named size: bert-tiny ... bert-large, modernbert-tiny ... modernbert-large")
    model_name_or_path: str | None = option(None, "continue from these weights (directory or hub name)")
    from_config: str | None = option(None, "any transformers configuration (config.json, directory or hub name)")
    config_overrides: Annotated[str | None, COMMAS] = option(
        None, "changes to the configuration: name=value,name=value"
    )
    objective: str = option("mlm", "mlm, or mlm+nsp (BERT only)")
    attn_implementation: str = option("auto", "auto, sdpa, flash_attention_2 or eager")
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass to save memory")
    torch_compile: bool = option(False, "compile each encoder layer")
    bf16: str = option("auto", "auto (where the hardware has it), true or false", nargs="?", const="true")

    max_seq_length: int | None = option(None, "tokens of a sequence, [CLS] and [SEP] included")
    length_schedule: Annotated[str | None, COMMAS] = option(
        None, "lengths and shares of a budget of tokens or FLOPs, e.g. 128:0.9,512:0.1"
    )
    mask_rate: float | None = option(None, "share of the tokens that are predicted")
    mask_token_rate: float = option(0.8, "share of these shown as [MASK]")
    random_token_rate: float = option(0.1, "share of these shown as a random token; the rest is shown as it is")
    whole_word_masking: bool = option(False, "mask whole words; Chinese ones in shards built with --words jieba")

    global_batch_rows: int = option(0, "rows of one update over all ranks; 0: 16 in the small world, 48 on shards")
    per_device_train_batch_size: int = option(0, "rows of one micro-batch; 0: as many as fit 16,384 tokens")
    gradient_accumulation_steps: int = option(0, "micro-batches of an update; 0: derived; otherwise checked")
    learning_rate: float | None = option(None, "peak learning rate")
    learning_rate_rule: str = option("none", "none, sqrt or linear in global_batch_rows / reference_batch_rows")
    reference_batch_rows: int = option(48, "the batch that --learning_rate is meant for")
    optimizer: str = option("auto", "adamw, adam, lamb; auto: what the DeepSpeed JSON names, else adamw")
    weight_decay: float = option(0.01, "on matrices, not on biases and norms")
    adam_beta1: float = option(0.9, "")
    adam_beta2: float = option(0.98, "")
    adam_epsilon: float = option(1e-6, "")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm; 0: not")

    budget_tokens: float | None = option(None, "non-padding tokens of the trunk; default: one pass over the shards")
    budget_flops: float | None = option(None, "model FLOPs of the trunk")
    budget_hours: float | None = option(None, "hours of the trunk, evaluation and saving excluded")
    series: Annotated[str | None, COMMAS] = option(
        None, "checkpoints at 6 log-spaced budgets: 6; at given ones: 1e5,4e5; only the last: 0"
    )
    series_ratio: float = option(2.0, "ratio of neighbouring budgets")
    warmup_fraction: float = option(0.1, "share of the smallest budget, at most 0.1")
    decay_fraction: float = option(0.15, "share of each budget in which the rate goes to zero")
    decay: str = option("sqrt", "sqrt, linear or cosine")
    validation_rows: int = option(384, "held-out rows for the validation loss")

    deepspeed: str | None = option(None, "DeepSpeed JSON; without it PyTorch, FSDP2 on several ranks")
    fsdp: str = option("full_shard", "full_shard, shard_grad_op or hybrid_shard")
    fsdp_offload: bool = option(False, "keep FSDP's parameters and optimizer on the CPU")
    hybrid_shard_size: int = option(0, "ranks that share one copy of the model; 0: those of a machine")

    seed: int = option(0, "of weights, order, masks and dropout")
    dataloader_num_workers: int = option(0, "processes that read and mask; 0: this one")
    verify: str = option("sizes", "sizes before the start and sha256 when a shard is opened; full: sha256 of all first")
    save_steps: int = option(0, "updates between checkpoints; 0: by time")
    save_minutes: float = option(10.0, "minutes between checkpoints")
    save_total_limit: int = option(2, "checkpoints kept beside the series; within a branch one more")
    resume_from_checkpoint: str = option("auto", "auto (continue what the output directory holds), never, or a path")
    report_to: Annotated[str, COMMAS] = option("tensorboard", "tensorboard, wandb, mlflow (comma-separated), or none")
    disable_tqdm: bool = option(False, "no progress bar")
    hang_timeout_seconds: float = option(1800.0, "an update that takes longer ends the run, with stacks; 0: never")
    max_skipped_updates: int = option(10, "updates in a row with a loss that is not finite before the run is ended")
    overfit_gate: bool = option(False, "first see whether this model and rate can overfit one batch")
    dry_run: bool = option(False, "print the plan and every contradiction, then stop")

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems))

    def problems(self) -> list[str]:
        """What is wrong with the options by themselves, whatever the data and the ranks; all of it."""
        found = []
        if sum(value is not None for value in (self.budget_tokens, self.budget_flops, self.budget_hours)) > 1:
            found.append("--budget_tokens, --budget_flops and --budget_hours exclude each other: give one")
        named = [name for name in ("model", "model_name_or_path", "from_config") if getattr(self, name)]
        if len(named) > 1:
            found.append(f"{' and '.join(f'--{name}' for name in named)}: name the model once")
        if self.max_seq_length is not None and self.length_schedule is not None:
            found.append("--max_seq_length and --length_schedule both say how long sequences are: give one")
        if self.max_seq_length is not None and self.max_seq_length < 1:
            found.append(f"--max_seq_length {self.max_seq_length}: a sequence has at least 4 tokens")
        shares = self.mask_token_rate, self.random_token_rate
        if min(shares) < 0 or sum(shares) > 1:
            found.append("--mask_token_rate {} and --random_token_rate {}: from 0, at most 1 together".format(*shares))
        if self.hybrid_shard_size and self.fsdp != "hybrid_shard":
            found.append(f"--hybrid_shard_size {self.hybrid_shard_size} belongs to --fsdp hybrid_shard: give both")
        if not 0 <= self.warmup_fraction <= 0.1:
            found.append(f"--warmup_fraction {self.warmup_fraction}: at most 0.1 of the smallest budget, at least 0")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                found.append(f"--{name} {getattr(self, name)!r} is unknown: use one of {', '.join(choices)}")
        for name, smallest in SMALLEST.items():
            if getattr(self, name) < smallest:
                found.append(f"--{name} {getattr(self, name)}: use at least {smallest}")
        return found

    def identity(self) -> dict[str, Any]:
        """The options that decide what is computed; two runs with the same ones are the same run.

        What a command adds of its own (when to stop, whom to tell) is no part of it.
        """
        names = [item.name for item in fields(PretrainingOptions) if item.name not in NOT_PART_OF_THE_RUN]
        return {name: getattr(self, name) for name in names}


SMALL_WORLD: dict[str, Any] = {
    "model": "modernbert-tiny",
    "config_overrides": "num_hidden_layers=3,num_attention_heads=4,initializer_range=0.05",
    "max_seq_length": 64,
    "mask_rate": 0.2,
    "global_batch_rows": 16,
    "learning_rate": 2e-3,
    "budget_tokens": 2_400_000,
    "series": "6",
}
REAL_SHARDS: dict[str, Any] = {
    "model": "modernbert-base",
    "max_seq_length": 128,
    "mask_rate": 0.3,
    "global_batch_rows": 48,
    "learning_rate": 8e-4,
    "series": "6",
}
NOT_GIVEN = {"global_batch_rows": 0}  # what an option holds that was not given, where that is not None


def with_defaults(options: PretrainingOptions) -> PretrainingOptions:
    """Fill what was not given; a model or a budget named by any option is not overridden by a default."""
    defaults = dict(SMALL_WORLD if options.shards is None else REAL_SHARDS)
    if options.model or options.model_name_or_path or options.from_config:
        defaults.pop("model")
        defaults.pop("config_overrides", None)
    if options.budget_flops is not None or options.budget_hours is not None:
        defaults.pop("budget_tokens", None)
    if options.length_schedule is not None:
        defaults.pop("max_seq_length")
    missing = {name: value for name, value in defaults.items() if getattr(options, name) == NOT_GIVEN.get(name)}
    return replace(options, **missing)
