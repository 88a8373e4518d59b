"""Checks of a plan: contradictions, which stop the run, and warnings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pretraining.checkpoints.checkpoint import MANIFEST_NAME, committed
from pretraining.checkpoints.origin import check_same_run
from pretraining.checkpoints.resumption import check_resumption, origin_warning
from pretraining.engines.deepspeed_config import has_cxx_compiler, resolve_config
from pretraining.engines.engine import check_ranks
from pretraining.loop.whole_words import whole_word_warning
from pretraining.model.families import family_of
from pretraining.model.source.tokenizer import check_source_tokenizer
from pretraining.plan.identity import fetched_digests, identity_of
from pretraining.plan.table import plan_lines
from runtime.machine import bf16_support
from runtime.plurals import amount_text
from runtime.processes.collectives import gather_json, largest
from runtime.processes.failures import Refused
from runtime.trackers import parse_reporters
from shards.storage.location import ShardLocation
from shards.streaming.order import lanes_for, lanes_of
from shards.streaming.stream import load_vocabulary

if TYPE_CHECKING:
    from pretraining.plan.plan import Plan

PROPERTIES = (
    *("budget", "lengths", "micro_batch_rows", "accumulation", "stream", "segments", "warmup", "peak_learning_rate"),
    *("optimizer", "engine", "config", "attention", "sharding", "memory"),
)
MUCH_PADDING = 0.1  # of the rows
HIGH_FOR_A_CHECKPOINT = 5e-4  # RoBERTa was continued at this with 2,048 rows an update (arXiv:2004.10964, appendix)


def announce(plan: Plan, shards: ShardLocation) -> None:
    """Print the plan, or print its contradictions on stderr and raise Refused. Every rank calls it."""
    warnings: list[str] = []
    problems = find_problems(plan, lambda: warnings.extend(data_warnings(plan, shards)))
    if plan.ranks.is_main:
        for problem in problems:
            print(f"contradiction: {problem}", file=sys.stderr)
        if not problems:
            texts = [f"   warning  {text}" for text in (*find_warnings(plan), *warnings)]
            print("\n".join([*plan_lines(plan), *texts]), flush=True)
    if problems:
        raise Refused(problems)


def find_problems(plan: Plan, *more: Callable[[], object]) -> list[str]:
    """All contradictions between options, JSON, data and ranks, with remedies, without duplicates; collective.

    `more` are further checks that raise ValueError or OSError. What one rank finds (another disk, another package) is
    shared with all ranks, so that they end together.
    """
    checks: list[Callable[[], object]] = [lambda name=name: getattr(plan, name) for name in PROPERTIES]  # type: ignore[misc]
    checks += [lambda: check_deepspeed(plan), lambda: check_data(plan)]
    checks += [lambda: check_output_dir(plan), lambda: check_compiler(plan)]
    checks += [lambda: check_ranks(plan.engine, plan.ranks), lambda: check_lanes(plan), lambda: check_spacing(plan)]
    checks += [lambda: check_same_run(Path(plan.options.output_dir), identity_of(plan))]
    checks += [lambda: parse_reporters(plan.options.report_to), lambda: check_resume(plan)]
    checks += [lambda: check_source(plan), *more]
    found = gather_json([list(complaints(checks)), start_of(plan)])
    problems = list(dict.fromkeys(chain.from_iterable(own for own, _ in found)))
    if not problems and any(start != found[0][1] for _, start in found):
        problems.append(f"{plan.options.model_name_or_path} changed while the ranks were fetching it: start again")
    return problems


def start_of(plan: Plan) -> dict[str, str] | None:
    """The digests of what this rank has fetched to start from; None where it could not."""
    try:
        return fetched_digests(plan.options)
    except (OSError, ValueError):
        return None  # a contradiction


def complaints(checks: Iterable[Callable[[], object]]) -> Iterable[str]:
    for check in checks:
        try:
            check()
        except (OSError, ValueError) as error:
            yield str(error)


def check_deepspeed(plan: Plan) -> None:
    """Fill in the JSON's "auto" values, as a trial."""
    if plan.deepspeed_config is not None:
        resolve_config(
            plan.deepspeed_config,
            micro_batch_size=plan.micro_batch_rows,
            accumulation=plan.accumulation,
            world_size=plan.ranks.world_size,
            clipping=plan.options.max_grad_norm,
            bf16=plan.bf16,
            fp16=plan.fp16,
            optimizer=plan.optimizer,
            source=f"--deepspeed {plan.options.deepspeed}",
        )


def check_output_dir(plan: Plan) -> None:
    """The directory need not exist, but no file may be in its place or above it."""
    wanted = Path(plan.options.output_dir).absolute()
    nearest = next(place for place in (wanted, *wanted.parents) if place.exists())
    if plan.ranks.is_main and not nearest.is_dir():
        raise ValueError(f"--output_dir {plan.options.output_dir}: {nearest} is a file; name a directory")
    if plan.ranks.is_main and not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"--output_dir {plan.options.output_dir}: {nearest} is not writable; name another")


def check_compiler(plan: Plan) -> None:
    if plan.options.torch_compile == "true" and plan.device.type == "cpu" and not has_cxx_compiler():
        raise ValueError("--torch_compile needs a C++ compiler (c++, g++) on PATH: install one, or leave it out")


def compile_mode(plan: Plan) -> str:
    """The meaning of --torch_compile here: auto is false where a rank cannot compile; collective."""
    mode = plan.options.torch_compile
    lacks = plan.device.type == "cpu" and not has_cxx_compiler()
    return "false" if largest([float(lacks)])[0] and mode == "auto" else mode


def check_lanes(plan: Plan) -> None:
    """Rows are dealt to the ranks in lanes: every rank needs one."""
    lanes_of(0, plan.ranks.world_size, lanes_for(plan.options.global_batch_rows))


def check_spacing(plan: Plan) -> None:
    """Budgets are reached at the end of an update: two that are less than one apart can be the same checkpoint.

    An update with padding has fewer tokens than a full one, so a full one apart is always enough. How many updates fill
    a budget of hours is not known beforehand.
    """
    unit, text = plan.budget.unit, str(plan.options.series)
    if not plan.budget.is_counted:
        return
    update = plan.options.global_batch_rows * max(plan.cost_of_row(plan.stream, length) for _, length in plan.lengths)
    close = [(low, high) for low, high in pairwise(plan.budgets) if high - low < update]
    if close:
        fitting, (low, high) = len(plan.budgets) - len(close), close[0]
        remedy = "leave out the smaller of each such pair" if "," in text else f"use --series {fitting}"
        raise ValueError(
            f"budgets {amount_text(low)} and {amount_text(high)} lie less than one update "
            f"({amount_text(update)} {unit}) apart and cannot be two checkpoints; of --series {text}, "
            f"{fitting} of {len(plan.budgets)} budgets fit: {remedy}, or raise the budget"
        )


def check_data(plan: Plan) -> None:
    if not plan.manifest.split("train").tokens:
        raise ValueError("the shards hold no training tokens: build them from more text")
    if plan.options.validation_rows and not plan.manifest.split("validation").tokens:
        raise ValueError(
            "the shards hold no validation tokens: build them with a held-out share (--document paragraph for a few "
            "long files, or a larger --validation_fraction)"
        )


def check_source(plan: Plan) -> None:
    """Trained weights must fill the model; checked before anything is built, and by a dry run too."""
    assert plan.fresh_tensors is not None


def check_resume(plan: Plan) -> None:
    wanted = plan.options.resume_from_checkpoint
    if wanted not in ("auto", "false"):
        if not Path(wanted).is_dir():
            raise ValueError(
                f"--resume_from_checkpoint {wanted} is not a directory: use auto, false, or a checkpoint's path"
            )
        if not (Path(wanted) / MANIFEST_NAME).exists():
            inside = [*committed(Path(wanted) / "checkpoints"), *committed(Path(wanted))]
            named = inside[0] if inside else "RUN/checkpoints/step-..."
            raise ValueError(
                f"{wanted} cannot be resumed from: it has no {MANIFEST_NAME}; name one checkpoint, such as {named}"
            )
    if plan.options.dry_run:  # a run itself looks for its checkpoint next
        directory, num_segments = Path(plan.options.output_dir), len(plan.segments)
        check_resumption(wanted, directory, identity=identity_of(plan), num_segments=num_segments)


def data_warnings(plan: Plan, shards: ShardLocation) -> list[str]:
    """Warnings about the content of the shards; ValueError where it contradicts the options."""
    texts: list[str | None] = []
    if plan.options.dry_run:  # a run itself opens the stream next
        load_vocabulary(shards.directory, shards.manifest)
    if source := plan.options.model_name_or_path:
        texts.append(check_source_tokenizer(source, shards.directory / shards.manifest.tokenizer.path))
    if plan.options.whole_word_masking:
        texts.append(whole_word_warning(shards))
    return [warning for warning in texts if warning]


def find_warnings(plan: Plan) -> list[str]:
    """Warnings about a valid plan."""
    texts: list[str] = []
    wanted = plan.options.resume_from_checkpoint
    if plan.options.dry_run and wanted not in ("auto", "false"):  # a run says it itself
        texts += [warning for warning in [origin_warning(Path(wanted), identity_of(plan))] if warning]
    options = plan.options
    if options.reference_batch_rows != type(options).reference_batch_rows and options.learning_rate_rule == "none":
        texts.append("--reference_batch_rows changes nothing without --learning_rate_rule sqrt or linear")
    if plan.fp16 and plan.device.type == "cpu":
        texts.append("--fp16 is for GPUs without bf16: on a CPU it is slow, use --bf16 auto")
    lacks_bf16 = plan.device.type == "cuda" and not bf16_support("cuda")[0]
    if options.bf16 == "auto" and lacks_bf16 and not (plan.bf16 or plan.fp16):
        texts.append(
            "this GPU has no bf16, and --bf16 auto computes in fp32: --fp16 computes in fp16 with loss scaling"
        )
    if options.model_name_or_path and plan.peak_learning_rate > HIGH_FOR_A_CHECKPOINT:
        texts.append(
            f"--learning_rate {plan.peak_learning_rate:g} is one for random weights, and undoes much of what "
            f"{options.model_name_or_path} has learnt: 2e-5 to 3e-4 are usual for a checkpoint"
        )
    if plan.memory is None:
        texts.append(
            f"the memory is unknown, {plan.config.model_type} cannot be traced as shapes: start with a small "
            "--per_device_train_batch_size"
        )
    if family_of(plan.config).runs_head_everywhere:
        _, length, slots = plan.shape_at(0)
        texts.append(
            f"the head of {plan.config.model_type} runs on all {length} positions of a "
            f"sequence, not on the {slots} that are predicted, which costs time and memory"
        )
    if warning := padding_warning(plan.manifest.block_tokens, plan.stream.tokens_per_row):
        texts.append(warning)
    if len(plan.lengths) > 1:
        parts = [(later - first, length) for (first, length), (later, _) in pairwise(plan.lengths)]
        reached = sum(rows * plan.cost_of_row(plan.stream, length) for rows, length in parts)
        short = [amount_text(budget) for budget in plan.budgets if budget <= reached]
        if short:
            texts.append(
                f"budgets {', '.join(short)} end before length {plan.lengths[-1][1]} begins: their positions beyond "
                "the shorter length are never trained"
            )
    if plan.budget.unit != "tokens":
        return texts
    epochs = plan.budget.amount / max(1, plan.manifest.split("train").tokens)
    if epochs > 4:
        texts.append(f"the budget is {epochs:.1f} passes over the shards: repeated tokens teach less and less")
    if plan.budgets[0] < 10 * plan.tokens_per_update:
        texts.append(
            f"the smallest budget of {amount_text(plan.budgets[0])} tokens is under ten updates of "
            f"{amount_text(plan.tokens_per_update)}"
        )
    return texts


def padding_warning(block_tokens: int, row_tokens: int) -> str | None:
    """The warning where rows divide blocks badly: the last row of each block is padded."""
    rows = -(-block_tokens // row_tokens)
    padding = 1 - block_tokens / (rows * row_tokens)
    if padding < MUCH_PADDING:
        return None
    fitting = max(1, rows - 1) * row_tokens
    return (
        f"{padding:.0%} of the rows is padding: a block of {block_tokens:,} tokens is {rows} rows of {row_tokens:,}; "
        f"build the shards with --block_tokens {fitting}"
    )
