"""The options of `launch/pretrain.py` and their defaults on the embedded small world and on real shards."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from pretraining.names import ATTENTION_IMPLEMENTATIONS, DECAYS, FSDP_MODES, LEARNING_RATE_RULES, OPTIMIZER_NAMES
from pretraining.plan.budget import UNITS, option_of
from runtime.hub import push_problems
from runtime.options.declaration import (
    ALL_SEEDS,
    DATA,
    HUB,
    MACHINE,
    MODEL,
    OUTPUT,
    PRECISIONS,
    TRAINING,
    Options,
    by_data,
    identity_values,
    names_marked,
    not_given,
    option,
    option_as_in,
)
from runtime.options.option_rules import idle_beside
from runtime.stores.cache import DEFAULT_GB
from runtime.stores.options import UploadOptions, upload_problems
from runtime.trackers import REPORTERS
from shards.building.options import BuildOptions
from shards.streaming.options import OBJECTIVES

BUDGET = "budget and series"
SMALL_WORLD, SHARDS = "on the small world", "on shards"  # which data an option's default depends on
CONTINUED = "from a checkpoint"  # over the default of the data
NAMES_THE_MODEL = "names the model"


@dataclass(frozen=True)
class PretrainingOptions(Options):
    """Options that are None, or 0 rows, take a default that depends on the data: `by_data`."""

    shards: str | None = option(
        None,
        "directory made by launch/build_shards.py, or its https, s3 or gs address; none: the embedded small world",
        group=DATA,
        identity=False,  # their content is in the identity
    )
    cache_gb: float = option(
        DEFAULT_GB,
        "size of the cache for shards at an address, in GB; the least recently used are deleted; 0: no limit",
        group=DATA,
        at_least=0,
        below=math.inf,
        identity=False,
    )
    max_seq_length: int | None = option(
        None,
        "tokens of a sequence, [CLS] and [SEP] included",
        group=DATA,
        at_least=4,
        at_most=1 << 16,
        by_data={SMALL_WORLD: 64, SHARDS: 128},
    )
    length_schedule: str | None = option(
        None, "lengths and shares of a budget of tokens or FLOPs, e.g. 128:0.9,512:0.1", group=DATA, commas=True
    )
    mask_rate: float | None = option(
        None,
        "share of the tokens that are predicted",
        group=DATA,
        above=0,
        below=1,
        by_data={SMALL_WORLD: 0.2, SHARDS: 0.3},
    )
    mask_token_rate: float = option(
        0.8, "share of the predicted tokens replaced by [MASK]", group=DATA, at_least=0, at_most=1
    )
    random_token_rate: float = option(
        0.1,
        "share of the predicted tokens replaced by a random one; the rest is unchanged",
        group=DATA,
        at_least=0,
        at_most=1,
    )
    whole_word_masking: bool = option(
        False, "mask whole words; Chinese ones in shards built with --words jieba", group=DATA
    )
    validation_rows: int = option(384, "held-out rows of the validation loss", group=DATA, at_least=1)
    dataloader_num_workers: int = option(
        0, "worker processes that read and mask; 0: the main process", group=DATA, at_least=0, identity=False
    )
    verify: str = option(
        "sizes",
        "sizes: sizes at the start, sha256 when a shard is opened; full: all sha256 at the start",
        group=DATA,
        choices=("sizes", "full"),
        identity=False,
    )

    model: str | None = option(
        None,
        "named size: bert-tiny ... bert-large, modernbert-tiny ... modernbert-large",
        group=MODEL,
        by_data={SMALL_WORLD: "modernbert-tiny", SHARDS: "modernbert-base"},
        marks=(NAMES_THE_MODEL,),
    )
    model_name_or_path: str | None = option(
        None,
        "continue from these weights (directory, s3:// or gs:// address, hub name or OWNER/NAME@REVISION)",
        group=MODEL,
        marks=(NAMES_THE_MODEL,),
    )
    from_config: str | None = option(
        None,
        "any transformers configuration (config.json, directory or hub name)",
        group=MODEL,
        marks=(NAMES_THE_MODEL,),
    )
    config_overrides: str | None = option(
        None,
        "changes to the configuration: name=value,name=value",
        group=MODEL,
        commas=True,
        settings=True,
        by_data={SMALL_WORLD: "num_hidden_layers=3,num_attention_heads=4,initializer_range=0.05"},
    )
    objective: str = option(
        "mlm", "mlm: masked tokens; mlm+nsp (BERT): next-sentence prediction too", group=MODEL, choices=OBJECTIVES
    )

    dropout: float | None = option(
        None,
        "dropout of the encoder while it is pretrained; default: 0 from scratch, else the checkpoint's rates",
        group=TRAINING,
        at_least=0,
        below=1,
        later=True,
    )
    global_batch_rows: int = option(
        0,
        "rows of one update over all ranks",
        group=TRAINING,
        at_least=0,
        by_data={SMALL_WORLD: 16, SHARDS: 48},
    )
    learning_rate: float | None = option(
        None,
        "peak learning rate",
        group=TRAINING,
        at_least=0,
        below=math.inf,
        by_data={SMALL_WORLD: 2e-3, SHARDS: 8e-4, CONTINUED: 1e-4},
    )
    head_warmup_tokens: float | None = option(
        None,
        "tokens of the budget in which a head that the checkpoint lacks is trained alone, the encoder frozen; default: "
        "a quarter of the smallest budget, 1,000 updates at most",
        group=TRAINING,
        at_least=0,
        below=math.inf,
        identity=False,  # its length in the plan is in the identity
    )
    head_learning_rate: float = option(
        1e-3,
        "learning rate of such a head while it is trained alone",
        group=TRAINING,
        at_least=0,
        below=math.inf,
        later=True,
    )
    learning_rate_rule: str = option(
        "none",
        "how the learning rate scales with global_batch_rows / reference_batch_rows",
        group=TRAINING,
        choices=LEARNING_RATE_RULES,
    )
    reference_batch_rows: int = option(48, "the batch that --learning_rate is meant for", group=TRAINING, at_least=1)
    optimizer: str = option(
        "auto",
        "auto: what the DeepSpeed JSON names, else adamw; muon: Muon for the layers' matrices, adamw for the rest",
        group=TRAINING,
        choices=("auto", *OPTIMIZER_NAMES),
    )
    muon_learning_rate: float = option(
        0.02,
        "peak learning rate of the matrices under --optimizer muon",
        group=TRAINING,
        at_least=0,
        below=math.inf,
        later=True,
    )
    weight_decay: float = option(
        0.01, "weight decay of matrices, not of biases and norms", group=TRAINING, at_least=0, below=math.inf
    )
    adam_beta1: float = option(0.9, "decay of the mean of the gradients", group=TRAINING, at_least=0, below=1)
    adam_beta2: float = option(0.98, "decay of the mean of the squared gradients", group=TRAINING, at_least=0, below=1)
    adam_epsilon: float = option(
        1e-6, "number added to the root of the mean of squares", group=TRAINING, above=0, below=math.inf
    )
    max_grad_norm: float = option(
        1.0, "gradients are clipped to this norm; 0: no clipping", group=TRAINING, at_least=0, what="1.0 is usual"
    )
    warmup_fraction: float = option(
        0.1,
        "share of the smallest budget in which the rate rises from zero",
        group=TRAINING,
        at_least=0,
        at_most=0.1,
        what="a share of the smallest budget",
    )
    decay_fraction: float = option(
        0.15,
        "share of each budget in which the rate goes to zero",
        group=TRAINING,
        above=0,
        below=1,
        what="a share of a budget",
    )
    decay: str = option("sqrt", "how the rate goes to zero", group=TRAINING, choices=DECAYS)
    seed: int = option(
        0,
        "seed of the weights, order, masks and dropout",
        group=TRAINING,
        at_least=0,
        below=ALL_SEEDS,
        what="a whole number",
    )
    max_skipped_updates: int = option(
        10,
        "updates in a row that are not finite before the run ends; those that only lower --fp16's scale do not count",
        group=TRAINING,
        at_least=1,
        identity=False,
    )
    overfit_gate: bool = option(
        False, "first check that this model and rate can overfit one batch", group=TRAINING, identity=False
    )

    budget_tokens: float | None = option(
        None,
        "non-padding tokens of the trunk; default: one pass over the shards",
        group=BUDGET,
        above=0,
        below=math.inf,
        by_data={SMALL_WORLD: 2_400_000},
    )
    budget_flops: float | None = option(None, "model FLOPs of the trunk", group=BUDGET, above=0, below=math.inf)
    budget_hours: float | None = option(
        None,
        "hours of the trunk; evaluation and the stall of a save do not count",
        group=BUDGET,
        above=0,
        below=math.inf,
    )
    series: str | None = option(
        None,
        "checkpoints at 6 log-spaced budgets: 6; at given ones: 1e5,4e5; only the last: 0",
        group=BUDGET,
        commas=True,
        by_data={SMALL_WORLD: "6", SHARDS: "6"},
    )
    series_ratio: float = option(2.0, "ratio of neighbouring budgets", group=BUDGET, above=1, below=math.inf)

    # Precision changes the numbers: a run that is resumed keeps its own. Its kernels and its machine may change.
    bf16: str = option(
        "auto",
        "bfloat16; auto: where the hardware has it",
        group=MACHINE,
        choices=PRECISIONS,
        nargs="?",
        const="true",
    )
    fp16: bool = option(
        False,
        "float16 with dynamic loss scaling, for GPUs without bf16; excludes --bf16 true",
        group=MACHINE,
        later=True,
    )
    per_device_train_batch_size: int = option(
        0, "rows of one micro-batch; 0: as many as fit 16,384 tokens", group=MACHINE, at_least=0, identity=False
    )
    gradient_accumulation_steps: int = option(
        0, "micro-batches of an update; 0: derived; otherwise checked", group=MACHINE, at_least=0, identity=False
    )
    gradient_checkpointing: bool = option(
        False, "recompute activations in the backward pass to save memory", group=MACHINE, identity=False
    )
    attn_implementation: str = option(
        "auto",
        "the attention kernel; auto: the fastest by a measured table",
        group=MACHINE,
        choices=ATTENTION_IMPLEMENTATIONS,
        identity=False,
    )
    torch_compile: str = option(
        "auto",
        "compile the model; auto: once a run is known to be long, kept if updates become faster",
        group=MACHINE,
        choices=PRECISIONS,
        nargs="?",
        const="true",
        identity=False,
    )
    deepspeed: str | None = option(
        None, "DeepSpeed JSON; without it PyTorch, FSDP2 on several ranks", group=MACHINE, identity=False
    )
    fsdp: str = option("full_shard", "what FSDP2 shards", group=MACHINE, choices=FSDP_MODES, identity=False)
    fsdp_offload: bool = option(False, "keep FSDP's parameters and optimizer on the CPU", group=MACHINE, identity=False)
    hybrid_shard_size: int = option(
        0,
        "ranks that share one copy of the model; 0: those of a machine",
        group=MACHINE,
        at_least=0,
        identity=False,
    )
    hang_timeout_seconds: float = option(
        1800.0,
        "an update that takes longer (compiled: by half an hour) ends the run and prints the stacks; 0: never",
        group=MACHINE,
        at_least=0,
        identity=False,
    )

    output_dir: str = option_as_in(
        "runs/pretrain", BuildOptions, "output_dir", "folder of the journal, checkpoints and series"
    )
    upload: str | None = option_as_in(None, UploadOptions, "upload")
    upload_wait_minutes: float = option_as_in(10.0, UploadOptions, "upload_wait_minutes")
    resume_from_checkpoint: str = option(
        "auto",
        "auto: continue the run in the output directory; false: start from the beginning; or a checkpoint's path",
        group=OUTPUT,
        identity=False,
        old_values={"never": "false", "true": "auto"},
    )
    save_steps: int = option(0, "updates between checkpoints; 0: by time", group=OUTPUT, at_least=0, identity=False)
    save_minutes: float = option(10.0, "minutes between checkpoints", group=OUTPUT, at_least=0, identity=False)
    async_save: bool = option(
        True, "write checkpoints in the background, from a copy, while training goes on", group=OUTPUT, identity=False
    )
    save_total_limit: int = option(
        2,
        "checkpoints kept besides the series; one more within a branch",
        group=OUTPUT,
        at_least=1,
        identity=False,
    )
    report_to: str = option(
        "tensorboard",
        "trackers of the curves, separated by commas",
        group=OUTPUT,
        choices=(*REPORTERS, "none"),
        commas=True,
        identity=False,
    )
    disable_tqdm: bool = option(False, "no progress bar", group=OUTPUT, identity=False)
    profile: int = option(
        0,
        "updates that are profiled: a table by stage and a trace in the output directory; 0: none",
        group=OUTPUT,
        at_least=0,
        at_most=1000,
        identity=False,
    )
    dry_run: bool = option(False, "print the plan and every contradiction, then stop", group=OUTPUT, identity=False)

    push_to_hub: bool = option(
        False,
        "push every checkpoint of the series, once it is verified, to a branch of --hub_model_id (tokens-1e6), and the "
        "largest to main; training does not wait. The token is that of HF_TOKEN or `hf auth login`",
        group=HUB,
        identity=False,
    )
    hub_model_id: str | None = option(None, "the repository, OWNER/NAME", group=HUB, identity=False)
    hub_private_repo: bool = option(
        False, "make the repository private, if it is not there yet", group=HUB, identity=False
    )
    hub_license: str | None = option(
        None, "license in the model cards on the hub, such as apache-2.0", group=HUB, identity=False
    )
    hub_language: str | None = option(
        None, "languages in the model cards on the hub: en, or en,de", group=HUB, commas=True, identity=False
    )

    def contradictions(self) -> list[str]:
        """All contradictions between options, independent of the data and the ranks."""
        problems = upload_problems(self.upload, self.output_dir)
        budgets = [f"--{option_of(unit)}" for unit in UNITS if getattr(self, option_of(unit)) is not None]
        if len(budgets) > 1:
            problems.append(f"{' and '.join(budgets)} exclude each other: give one")
        named = [name for name in names_marked(self, NAMES_THE_MODEL) if getattr(self, name)]
        if len(named) > 1:
            problems.append(f"{' and '.join(f'--{name}' for name in named)}: name the model once")
        if self.max_seq_length is not None and self.length_schedule is not None:
            problems.append("--max_seq_length and --length_schedule both set the sequence length: give one")
        shares = self.mask_token_rate, self.random_token_rate
        if sum(shares) > 1:
            problems.append("--mask_token_rate {} and --random_token_rate {}: at most 1 together".format(*shares))
        if self.hybrid_shard_size and self.fsdp != "hybrid_shard":
            problems.append(f"--hybrid_shard_size {self.hybrid_shard_size} belongs to --fsdp hybrid_shard: give both")
        if self.fp16 and self.bf16 == "true":
            problems.append("--fp16 and --bf16 true are two precisions: give one")
        if not self.model_name_or_path:
            names = ["head_warmup_tokens", "head_learning_rate"]
            problems += idle_beside(self, names, "a model that starts at random")
        if self.optimizer != "muon":
            problems += idle_beside(self, ["muon_learning_rate"], f"--optimizer {self.optimizer}")
        return [*problems, *push_problems(self)]

    def identity(self) -> dict[str, Any]:
        """The options that decide what is computed; two runs with the same ones are the same run."""
        return identity_values(self)


def with_defaults(options: PretrainingOptions) -> PretrainingOptions:
    """Fill in the defaults; a model or a budget given by any option is not overridden by one."""
    defaults = by_data(options, SMALL_WORLD if options.shards is None else SHARDS)
    if any(getattr(options, name) for name in names_marked(options, NAMES_THE_MODEL)):
        defaults.pop("model")
        defaults.pop("config_overrides", None)
    if options.model_name_or_path:
        defaults |= by_data(options, CONTINUED)
    if any(getattr(options, option_of(unit)) is not None for unit in UNITS if unit != "tokens"):
        defaults.pop("budget_tokens", None)
    if options.length_schedule is not None:
        defaults.pop("max_seq_length")
    return replace(options, **{name: defaults[name] for name in not_given(options) & defaults.keys()})
