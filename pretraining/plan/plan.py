"""The plan of a run: all that is derived from options, shards and ranks before a model is built."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from pretraining.engines.deepspeed_config import load_config
from pretraining.engines.engine import EngineOptions
from pretraining.engines.precision import Precision, choose_precision, require_fp16, require_half
from pretraining.engines.updating.optimizers import OptimizerOptions, scaled_learning_rate
from pretraining.model.attention import attention_for
from pretraining.model.configuration import build_configuration, parse_overrides
from pretraining.model.families import shape_only
from pretraining.model.flops import update_flops
from pretraining.model.masked_lm import PretrainingModel, build_model, check_weights
from pretraining.model.memory import MemoryEstimate, Sharding, estimate_memory
from pretraining.plan.budget import UNITS, Budget, option_of
from pretraining.plan.choices import ARCHITECTURE, Choices
from pretraining.plan.lengths import parse_length_schedule, scheduled_rows
from pretraining.plan.options import PretrainingOptions
from pretraining.plan.planned_engine import optimizer_kind, optimizer_title, planned_sharding
from pretraining.plan.segments import Segment, check_cost, parse_series, plan_segments
from runtime.options.option_rules import refuse_given
from runtime.plurals import amount_text
from runtime.processes.ranks import Ranks
from shards.storage.manifest import Manifest
from shards.streaming.masking import mask_slots
from shards.streaming.options import StreamOptions
from shards.streaming.order import lanes_for, rows_per_rank

MICRO_BATCH_TOKENS = 16_384
HEAD_WARMUP_SHARE = 0.25  # of the smallest budget, in which a fresh head is trained alone
HEAD_WARMUP_UPDATES = 1000  # at most


@dataclass(frozen=True)
class Plan:
    """The plan of a run. Properties raise ValueError where the options contradict each other or the data."""

    options: PretrainingOptions  # with defaults filled in
    manifest: Manifest
    ranks: Ranks
    device: torch.device
    earlier: Choices = field(default_factory=Choices)  # of the run that is continued, or of the main rank

    @cached_property
    def precision(self) -> Precision:
        """bf16, fp16 or fp32, and why."""
        if self.options.fp16:
            require_half(self.config.model_type, "--fp16")
            require_fp16(self.device.type, self.deepspeed_config)
            return Precision(False, "--fp16", fp16=True)
        choice, earlier = self.options.bf16, self.earlier
        found = choose_precision(
            choice,
            device_type=self.device.type,
            model_type=self.config.model_type,
            deepspeed=self.deepspeed_config,
            earlier=earlier.bf16,
        )
        return replace(found, reason=earlier.why_bf16) if choice == "auto" and earlier.bf16 is not None else found

    @property
    def bf16(self) -> bool:
        return self.precision.bf16

    @property
    def choices(self) -> Choices:
        """What this plan settles; the checkpoints keep it."""
        return Choices(self.bf16, self.precision.reason, self.attention, self.earlier.compiled, self.dropout)

    @property
    def fp16(self) -> bool:
        """Whether to compute in float16 with loss scaling."""
        return self.options.fp16

    @cached_property
    def shares(self) -> list[tuple[int, float]]:
        """Sequence lengths in their order, and the share of the budget that each has."""
        text = self.options.length_schedule
        return [(int(self.options.max_seq_length), 1.0)] if text is None else parse_length_schedule(text)  # type: ignore[arg-type]

    @cached_property
    def longest(self) -> int:
        return max(length for length, _ in self.shares)

    @cached_property
    def lengths(self) -> tuple[tuple[int, int], ...]:
        """The length schedule as (first row, length)."""
        if self.options.length_schedule is None:
            return ((0, self.longest),)
        if not self.budget.is_counted:
            raise ValueError(
                "--length_schedule divides a budget of tokens or FLOPs: give "
                "--budget_tokens or --budget_flops in place of --budget_hours"
            )
        probe = self.stream_with(tuple((index, length) for index, (length, _) in enumerate(self.shares)))
        return scheduled_rows(
            self.shares,
            budget=self.budget.amount,
            cost_of_row=lambda length: self.cost_of_row(probe, length),
            global_batch_rows=self.options.global_batch_rows,
        )

    def untrained_positions(self, rows: int) -> int:
        """Positions of the longest length that no sequence of the first `rows` rows was long enough to reach."""
        return self.longest - max((length for first, length in self.lengths if first < rows), default=self.longest)

    @cached_property
    def stream(self) -> StreamOptions:
        return self.stream_with(self.lengths)

    def stream_with(self, lengths: tuple[tuple[int, int], ...]) -> StreamOptions:
        options = self.options
        return StreamOptions(
            seed=options.seed,
            global_batch_rows=options.global_batch_rows,
            micro_batch_rows=self.micro_batch_rows,
            lengths=lengths,
            objective=options.objective,
            mask_rate=float(options.mask_rate or 0),
            mask_share=options.mask_token_rate,
            random_share=options.random_token_rate,
            whole_word=options.whole_word_masking,
        )

    @cached_property
    def rows_per_rank(self) -> int:
        """Rows of an update on each rank, padding rows included."""
        rows = self.options.global_batch_rows
        return rows_per_rank(self.ranks.world_size, lanes_for(rows), rows)

    @cached_property
    def micro_batch_rows(self) -> int:
        given = self.options.per_device_train_batch_size
        if given == 0 and self.options.gradient_accumulation_steps > 0:
            return -(-self.rows_per_rank // self.options.gradient_accumulation_steps)
        fitting = max(1, MICRO_BATCH_TOKENS // self.longest)
        return min(given or fitting, self.rows_per_rank)

    @cached_property
    def accumulation(self) -> int:
        """Micro-batches of an update on each rank: derived from the global batch, never the other way round."""
        derived = -(-self.rows_per_rank // self.micro_batch_rows)
        given = self.options.gradient_accumulation_steps
        if given and given != derived:
            raise ValueError(
                f"--gradient_accumulation_steps {given} contradicts --global_batch_rows "
                f"{self.options.global_batch_rows}: with {self.ranks.world_size} ranks and micro-batches of "
                f"{self.micro_batch_rows} rows it is {derived}; leave it out, or change the global batch"
            )
        return derived

    @cached_property
    def rows_per_epoch(self) -> int:
        row_tokens = self.stream.tokens_per_row
        return int((-(-self.manifest.split("train").block_tokens() // row_tokens)).sum())

    @cached_property
    def budget(self) -> Budget:
        options = self.options
        for unit in UNITS:
            amount = getattr(options, option_of(unit))
            if amount is not None:
                return Budget(amount, unit)
        return Budget(float(self.manifest.split("train").tokens))

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        options, text = self.options, self.options.series or "0"
        segments = plan_segments(
            self._series,
            decay_fraction=options.decay_fraction,
            raw=text.strip() != "0",
            head_warmup=self.head_warmup,
        )
        check_cost(segments, decay_fraction=options.decay_fraction)
        return segments

    @cached_property
    def _series(self) -> tuple[float, ...]:
        return parse_series(self.options.series or "0", self.budget.amount, self.options.series_ratio)

    @cached_property
    def budgets(self) -> tuple[float, ...]:
        return tuple(sorted({float(segment.budget) for segment in self.segments if segment.budget is not None}))

    @cached_property
    def warmup(self) -> float:
        return self.options.warmup_fraction * self.budgets[0]

    @cached_property
    def fresh_tensors(self) -> tuple[str, ...]:
        """Names of the head's tensors that the starting checkpoint lacks, by the headers of its files."""
        source = self.options.model_name_or_path
        return tuple(check_weights(self.config, source, self.options.objective)) if source else ()

    @cached_property
    def head_warmup(self) -> float:
        """The first part of the budget, in its unit, in which a fresh head is trained alone; 0: none."""
        given, smallest = self.options.head_warmup_tokens, self._series[0]
        if not self.fresh_tensors:
            idle = ["head_learning_rate", *(["head_warmup_tokens"] if given else [])]
            refuse_given(self.options, idle, f"{self.options.model_name_or_path}, which has the whole head")
            return 0.0
        if given is not None and given and not self.budget.is_counted:
            raise ValueError(
                f"--head_warmup_tokens {amount_text(given)} is a part of a budget in tokens or FLOPs: give "
                "--budget_tokens or --budget_flops in place of --budget_hours, or leave it out"
            )
        if given is not None:
            length = given / self.tokens_per_update * self.cost_of_head_update(0) if given else 0.0
        else:
            longest = HEAD_WARMUP_UPDATES * self.cost_of_head_update(0) if self.budget.is_counted else float("inf")
            length = min(HEAD_WARMUP_SHARE * smallest, longest)
        if length + self.options.warmup_fraction * smallest > (1 - self.options.decay_fraction) * smallest:
            raise ValueError(
                f"a fresh head is trained alone for {amount_text(length)} {self.budget.unit}, and then the rate warms "
                f"up: the decay to the smallest budget of {amount_text(smallest)} would begin before; lower "
                "--head_warmup_tokens, --warmup_fraction or --decay_fraction, or leave out the smallest budgets of "
                "--series"
            )
        return length

    @cached_property
    def peak_learning_rate(self) -> float:
        return self._scaled(float(self.options.learning_rate or 0))

    def _scaled(self, rate: float) -> float:
        """A rate for the batch of --reference_batch_rows, as it is for this run's batch."""
        options = self.options
        return scaled_learning_rate(
            rate,
            rows=options.global_batch_rows,
            reference_rows=options.reference_batch_rows,
            rule=options.learning_rate_rule,
        )

    @cached_property
    def optimizer(self) -> OptimizerOptions:
        options = self.options
        return OptimizerOptions(
            name=options.optimizer,
            learning_rate=self.peak_learning_rate,
            weight_decay=options.weight_decay,
            betas=(options.adam_beta1, options.adam_beta2),
            eps=options.adam_epsilon,
            muon_learning_rate=self._scaled(options.muon_learning_rate),
        )

    @property
    def optimizer_kind(self) -> str:
        """adamw, adam, lamb or muon, whoever names it: the options or the DeepSpeed JSON."""
        return optimizer_kind(self.optimizer.name, self.deepspeed_config)

    @property
    def optimizer_title(self) -> str:
        return optimizer_title(self.optimizer, self.deepspeed_config, self.sharding)

    @cached_property
    def deepspeed_config(self) -> dict[str, Any] | None:
        """The content of the DeepSpeed JSON, read once: the file may change during the run. None: PyTorch."""
        return load_config(self.options.deepspeed) if self.options.deepspeed else None

    @cached_property
    def engine(self) -> EngineOptions:
        return EngineOptions.of(
            self.options,
            deepspeed=self.deepspeed_config,
            optimizer=self.optimizer,
            bf16=self.bf16,
            fp16=self.fp16,
            micro_batch_size=self.micro_batch_rows,
            gradient_accumulation_steps=self.accumulation,
            fresh=frozenset(self.fresh_tensors if self.head_warmup else ()),
        )

    @cached_property
    def config(self) -> Any:
        """The `transformers` configuration, fitted to the data, of the model and of all estimates; reads no weights."""
        options, tokenizer = self.options, self.manifest.tokenizer
        return build_configuration(
            options.model,
            vocab_size=tokenizer.vocab_size,
            special_ids=tokenizer.special_ids,
            max_seq_length=self.longest,
            from_config=options.from_config,
            model_name_or_path=options.model_name_or_path,
            config_overrides=options.config_overrides,
            objective=options.objective,
        )

    @property
    def has_pairs(self) -> bool:
        """Whether sequences are pairs of sentences, and the model has a head for the next one."""
        return self.options.objective == "mlm+nsp"

    @cached_property
    def attention(self) -> str:
        """The attention implementation that is used."""
        wanted = self.options.attn_implementation
        if wanted == "auto" and self.earlier.attention is not None:
            with suppress(ValueError):  # this machine may lack the kernel that the run began with
                return self._attention(self.earlier.attention)
        return self._attention(wanted)

    def _attention(self, wanted: str) -> str:
        device, length = self.device.type, self.longest
        return attention_for(wanted, self.config, bf16=self.bf16, device_type=device, length=length)

    @cached_property
    def dropout(self) -> float | str:
        """The encoder's dropout while it is pretrained: one rate, or "architecture" for the configuration's own."""
        if self.options.dropout is not None:
            return self.options.dropout
        if self.earlier.dropout is not None:
            return self.earlier.dropout
        given = parse_overrides(self.options.config_overrides)
        keeps = self.options.model_name_or_path or any("dropout" in name for name in given)
        return ARCHITECTURE if keeps else 0.0

    def build_model(self) -> PretrainingModel:
        """The model on the CPU, initialised by the seed or with the weights that were named."""
        return build_model(
            self.config,
            objective=self.options.objective,
            attention=self.attention,
            seed=self.options.seed,
            dropout=None if self.dropout == ARCHITECTURE else float(self.dropout),
            weights=self.options.model_name_or_path,
            gradient_checkpointing=self.options.gradient_checkpointing,
        )

    @cached_property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in shape_only(self.config, next_sentence=self.has_pairs).parameters())

    def shape_at(self, row: int) -> tuple[int, int, int]:
        """Sequences in a row, their length in tokens, and mask slots of each, for the update of a global row."""
        return self.shape_of_row(self.stream, self.stream.length_at(row))

    def shape_of_row(self, stream: StreamOptions, length: int) -> tuple[int, int, int]:
        sequences, width = stream.sequence_shape(length)
        return sequences, width + stream.overhead, mask_slots(width, stream.mask_rate)

    def tokens_of_row(self, stream: StreamOptions, length: int) -> int:
        """Tokens of a row of sequences of a scheduled length, special ones included."""
        return stream.tokens_per_row + stream.sequence_shape(length)[0] * stream.overhead

    def flops_of_rows(self, num_rows: int, stream: StreamOptions, length: int, *, head_only: bool = False) -> float:
        """Model FLOPs of rows of sequences of a scheduled length; with `head_only` the encoder is frozen."""
        sequences, length, slots = self.shape_of_row(stream, length)
        return update_flops(
            self.config,
            num_sequences=sequences * num_rows,
            sequence_length=length,
            num_masked=slots * sequences * num_rows,
            next_sentence=self.has_pairs,
            head_only=head_only,
        )

    def cost_of_row(self, stream: StreamOptions, length: int) -> float:
        """The cost of a row of sequences of a scheduled length, in the unit of a counted budget."""
        return self._cost_of_rows(1, stream, length)

    def cost_of_update(self, row: int) -> float:
        """The cost of the update that starts at a global row, in the unit of a counted budget."""
        return self._cost_of_rows(self.options.global_batch_rows, self.stream, self.stream.length_at(row))

    def _cost_of_rows(self, num_rows: int, stream: StreamOptions, length: int) -> float:
        of_rows = UNITS[self.budget.unit].of_rows
        assert of_rows is not None, "asked for a budget that is not counted beforehand"
        return of_rows(self, num_rows, stream, length)

    def cost_of_head_update(self, row: int) -> float:
        """The cost of the update that starts at a global row while the encoder is frozen, in a counted budget's unit.

        A frozen encoder reads as many tokens, and costs fewer FLOPs.
        """
        return self.flops_of_head_update(row) if self.budget.unit == "flops" else self.cost_of_update(row)

    def flops_of_update(self, row: int) -> float:
        """Model FLOPs of the update that starts at a global row."""
        return self.flops_of_rows(self.options.global_batch_rows, self.stream, self.stream.length_at(row))

    def flops_of_head_update(self, row: int) -> float:
        """Model FLOPs of the update that starts at a global row while the encoder is frozen."""
        rows, length = self.options.global_batch_rows, self.stream.length_at(row)
        return self.flops_of_rows(rows, self.stream, length, head_only=True)

    @cached_property
    def sharding(self) -> Sharding:
        return planned_sharding(self.options, self.deepspeed_config, self.ranks, bf16=self.bf16, fp16=self.fp16)

    @cached_property
    def memory(self) -> MemoryEstimate | None:
        """The estimated peak memory of a rank; None: unknown, the model's code cannot be traced without values."""
        return self.memory_with()

    def memory_with(
        self,
        *,
        sharding: Sharding | None = None,
        micro_batch_rows: int | None = None,
        gradient_checkpointing: bool | None = None,
    ) -> MemoryEstimate | None:
        """The estimate with other settings, for advice on a run that does not fit."""
        first, _ = max(self.lengths, key=lambda entry: entry[1])
        sequences, length, slots = self.shape_at(first)
        recompute = self.options.gradient_checkpointing if gradient_checkpointing is None else gradient_checkpointing
        rows, sharding = micro_batch_rows or self.micro_batch_rows, sharding or self.sharding
        try:
            return estimate_memory(
                self.config,
                sharding,
                num_sequences=rows * sequences,
                sequence_length=length,
                num_masked_per_sequence=slots,
                gradient_checkpointing=recompute,
                next_sentence=self.has_pairs,
                attention=self.attention,
                saving_ranks=self.ranks.world_size,
                muon=self.optimizer_kind == "muon",
                num_micro_batches=-(-self.options.global_batch_rows // (rows * self.ranks.world_size)),
            )
        except (AttributeError, RuntimeError, TypeError):  # such code fails with these on shapes without values
            return None

    @cached_property
    def tokens_per_update(self) -> int:
        return self.tokens_of_row(self.stream, self.stream.length_at(0)) * self.options.global_batch_rows
