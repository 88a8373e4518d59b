"""Pretraining from Python: `pretrain`, which launch/pretrain.py calls too, its keywords and its result.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from pretraining.plan.options import PretrainingOptions, with_defaults
from pretraining.replaced_options import REPLACED_OPTIONS
from runtime.options.keywords import Settings, Several, Words, options_of
from runtime.processes.ranks import read_ranks
from runtime.processes.restoring import restoring_process
from runtime.stores.options import in_local_folder

if TYPE_CHECKING:
    from pretraining.plan.plan import Plan
    from pretraining.run import Watch
    from shards.storage.location import ShardLocation


class PretrainingKeywords(TypedDict, total=False):
    """What a call takes: the fields of `PretrainingOptions`, some of wider types, such as a path object or a list."""

    shards: Words | None
    max_seq_length: int | None
    length_schedule: Several | None
    mask_rate: float | None
    mask_token_rate: float
    random_token_rate: float
    whole_word_masking: bool
    validation_rows: int
    dataloader_num_workers: int
    verify: Literal["sizes", "full"]
    cache_gb: float
    model: Words | None
    model_name_or_path: Words | None
    from_config: Words | None
    config_overrides: Settings | None
    objective: Literal["mlm", "mlm+nsp"]
    dropout: float | None
    global_batch_rows: int
    learning_rate: float | None
    head_warmup_tokens: float | None
    head_learning_rate: float
    learning_rate_rule: Literal["none", "sqrt", "linear"]
    reference_batch_rows: int
    optimizer: Literal["auto", "adamw", "adam", "lamb", "muon"]
    muon_learning_rate: float
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    max_grad_norm: float
    warmup_fraction: float
    decay_fraction: float
    decay: Literal["linear", "sqrt", "cosine"]
    seed: int
    max_skipped_updates: int
    overfit_gate: bool
    budget_tokens: float | None
    budget_flops: float | None
    budget_hours: float | None
    series: Several | None
    series_ratio: float
    bf16: Literal["auto", "true", "false"] | bool
    fp16: bool
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    attn_implementation: Literal["sdpa", "flash_attention_2", "eager", "auto"]
    torch_compile: Literal["auto", "true", "false"] | bool
    deepspeed: Words | None
    fsdp: Literal["full_shard", "shard_grad_op", "hybrid_shard"]
    fsdp_offload: bool
    hybrid_shard_size: int
    hang_timeout_seconds: float
    output_dir: Words
    upload: Words | None
    upload_wait_minutes: float
    resume_from_checkpoint: Words
    save_steps: int
    save_minutes: float
    async_save: bool
    save_total_limit: int
    report_to: Several
    disable_tqdm: bool
    profile: int
    dry_run: bool
    push_to_hub: bool
    hub_model_id: Words | None
    hub_private_repo: bool
    hub_license: Words | None
    hub_language: Several | None


@dataclass(frozen=True)
class PretrainingResult:
    """A run's folder, and what is in it: the main rank wrote it, and every property reads it again."""

    output_dir: Path

    @property
    def series(self) -> Path:
        """`series.json`, the list of the checkpoints; after a dry run there is none."""
        return self.output_dir / "series.json"

    @property
    def checkpoints(self) -> list[dict[str, Any]]:
        """The checkpoints by budget, from the smallest (0: random weights), empty after a dry run.

        Each is a dict: `path` (absolute, a `transformers` directory), `kind` ("raw", or "annealed": the learning rate
        went to zero), `budget_tokens` and `tokens_seen`, `flops`, `seconds`, `validation_loss` (nats for each masked
        token), `validation_accuracy` (a share), `pretraining_seed`.
        """
        from pretraining.checkpoints.series import read_series

        return read_series(self.series) if self.series.is_file() else []

    @property
    def model(self) -> Path:
        """The checkpoint at the largest budget, annealed: for `AutoModelForMaskedLM.from_pretrained`.

        Raises ValueError where the run has none.
        """
        annealed = [entry for entry in self.checkpoints if entry["kind"] == "annealed"]
        if not annealed:
            raise ValueError(f"{self.output_dir} has no annealed checkpoint: it was a dry run, or it has yet to end")
        return Path(max(annealed, key=lambda entry: entry["budget_tokens"])["path"])

    @property
    def updates(self) -> list[dict[str, Any]]:
        """The journal, a dict for each update in order, those of annealed branches among them.

        `segment` ("trunk" or the branch), `update`, `tokens` (seen so far), `loss` (nats for each masked token),
        `accuracy` (a share), `learning_rate`, `gradient_norm`, `seconds`, `tokens_per_second` and more.
        """
        from pretraining.loop.journal import read_journal

        journal = self.output_dir / "journal.jsonl"
        return read_journal(journal) if journal.is_file() else []

    @property
    def losses(self) -> list[float]:
        """The training loss of the trunk, in nats for each masked token, one for each update; NaN where not finite."""
        losses = [line["loss"] for line in self.updates if line["segment"] == "trunk"]
        return [math.nan if loss is None else float(loss) for loss in losses]


def pretrain(
    options: PretrainingOptions | None = None,
    /,
    *,
    watch_of: Callable[[Plan, ShardLocation], Watch] | None = None,
    **keywords: Unpack[PretrainingKeywords],
) -> PretrainingResult:
    """Pretrain a masked-language model and leave a series of checkpoints, as launch/pretrain.py does.

    The keywords are the options of the command, under the same names and with the same defaults (`--help` describes
    them); or give one object, `pretrain(PretrainingOptions(...))`. Without `shards` it runs on the embedded small
    world. A run that was interrupted continues, and one that is finished returns at once, when it is called again.
    `watch_of` builds what may end the run early, from its plan and its shards.

    Under torchrun or deepspeed every rank calls it with the same options. The process is as before when it returns or
    raises: see `runtime.processes.restoring`. Plan and progress are printed.

    Raises TypeError for an unknown keyword or a value of another type; ValueError for options, shards or a folder that
    cannot be used, with every contradiction and its remedy; Failed when the work failed (a loss that is not finite,
    another rank); Interrupted on SIGTERM, SIGUSR1 or Ctrl-C, when all is saved and the same call continues; OSError,
    MemoryError and torch.OutOfMemoryError of the machine.
    """
    wanted = options_of(PretrainingOptions, options, keywords, function="pretrain", replaced=REPLACED_OPTIONS.get)
    ranks, filled = read_ranks(), with_defaults(in_local_folder(wanted))
    with restoring_process("pretrain", ranks):
        from pretraining.run import run_pretraining  # loads torch, which a refused keyword does not need

        run_pretraining(filled, ranks, watch_of=watch_of)
    return PretrainingResult(Path(filled.output_dir))
