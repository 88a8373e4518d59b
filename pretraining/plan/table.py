"""The plan as text, as `--dry_run` and the start of a run print it."""

from __future__ import annotations

import math

from pretraining.plan.options import PretrainingOptions
from pretraining.plan.plan import Plan
from pretraining.plan.segments import Segment, relative_cost
from runtime.plurals import amount_text, counted
from runtime.stores.cache import cache_folder


def plan_lines(plan: Plan) -> list[str]:
    """The lines of the plan: model, data, update, optimizer, engine, budgets and memory."""
    options, ranks, unit, amount = plan.options, plan.ranks, plan.budget.unit, plan.budget.amount
    training = plan.manifest.split("train")
    name = options.model or options.from_config or options.model_name_or_path
    sharding = f"DeepSpeed {plan.sharding.mode}" if options.deepspeed else f"PyTorch, {plan.sharding.mode}"
    counts = planned_updates(plan)
    updates = "" if counts is None else f", about {counts[0]:,} updates of the trunk, {counts[1]:,} in all"
    rows = {
        "model": f"{name}, {plan.config.model_type}, {plan.num_parameters / 1e6:.2f} M parameters, "
        f"dropout {plan.dropout if isinstance(plan.dropout, str) else format(plan.dropout, 'g')}",
        "data": f"{training.tokens:,} tokens in {training.documents:,} documents, {plan.rows_per_epoch:,} rows of "
        f"{plan.stream.tokens_per_row} tokens, vocabulary {plan.manifest.tokenizer.vocab_size:,}",
        "update": f"{options.global_batch_rows} rows, {plan.tokens_per_update:,} tokens: "
        f"{counted(ranks.world_size, 'rank')} x {counted(plan.accumulation, 'micro-batch')} x "
        f"{counted(plan.micro_batch_rows, 'row')}",
        "lengths": ", ".join(f"{length} tokens from row {first:,}" for first, length in plan.lengths),
        "optimizer": f"{plan.optimizer_title}, peak learning rate {plan.peak_learning_rate:g}, "
        f"warmup {amount_text(plan.warmup)} {unit}, decay over {options.decay_fraction:.0%} of each budget",
        **head_line(plan),
        "engine": f"{sharding}, {plan.device.type}, {plan.precision}, attention {plan.attention}, "
        f"compilation {options.torch_compile}",
        "budget": f"{amount_text(amount)} {unit}{updates}",
        "series": ", ".join(amount_text(budget) for budget in (0.0, *plan.budgets))
        + f" {unit}; costs {relative_cost(plan.segments):.2f} times the largest",
        **place_lines(options),
        "memory": "unknown" if plan.memory is None else plan.memory.sentence(),
    }
    if options.push_to_hub:
        rows["hub"] = f"{options.hub_model_id}, a branch for every checkpoint, the largest on main"
    return [f"{name:>10}  {text}" for name, text in rows.items()]


def place_lines(options: PretrainingOptions) -> dict[str, str]:
    """Where shards are cached and output is uploaded; no line where all is in folders of this machine."""
    lines = {}
    if "://" in (options.shards or ""):
        limit = f"at most {options.cache_gb:g} GB" if options.cache_gb else "without limit"
        lines["shards"] = f"{options.shards}, cached in {cache_folder()}, {limit}"
    if options.upload:
        lines["upload"] = f"{options.output_dir} to {options.upload}, while the run goes on"
    return lines


def head_line(plan: Plan) -> dict[str, str]:
    """The line about a head that the starting checkpoint lacks; no line where it lacks none."""
    names = plan.fresh_tensors
    if not names:
        return {}
    lacking = f"{plan.options.model_name_or_path} has no {', '.join(names[:2])}{', ...' * (len(names) > 2)}"
    if not plan.head_warmup:
        return {"head": f"{lacking}: random, trained with the encoder from the start"}
    return {
        "head": f"{lacking}: random, and trained alone for the first {amount_text(plan.head_warmup)} "
        f"{plan.budget.unit} of each budget at rate {plan.options.head_learning_rate:g}; then a new warmup for all "
        "weights"
    }


def planned_updates(plan: Plan) -> tuple[int, int] | None:
    """Updates of the trunk and of all segments, with full rows; None for a budget in hours.

    As the training loop counts: a segment ends with the first update at or past its end, a branch leaves the trunk
    where it was.
    """
    if not plan.budget.is_counted:
        return None
    trunk = branches = 0
    spent = 0.0
    for segment in plan.segments:
        updates, after = _until(plan, segment, trunk, spent)
        if segment.is_branch:
            branches += updates
        else:
            trunk, spent = trunk + updates, after
    return trunk, trunk + branches


def seconds_left(plan: Plan, done: int, spent: float, seconds_per_update: float) -> float:
    """Seconds until the end of the plan, `done` updates and `spent` seconds after its start."""
    counts = planned_updates(plan)
    if counts is None:
        return 3600 * plan.budget.amount * relative_cost(plan.segments) - spent
    return (counts[1] - done) * seconds_per_update


def _until(plan: Plan, segment: Segment, done: int, spent: float) -> tuple[int, float]:
    """Updates from the one numbered `done`, with `spent` used, until a segment ends; and what is used then."""
    rows, updates = plan.options.global_batch_rows, 0
    cost_of_update = plan.cost_of_head_update if segment.head_only else plan.cost_of_update
    while spent < segment.end:
        row = (done + updates) * rows
        each = cost_of_update(row)
        needed = math.ceil((segment.end - spent) / each)
        following = [first for first, _ in plan.lengths if first > row]
        count = min([needed, *(-(-(first - row) // rows) for first in following)])
        updates, spent = updates + count, spent + count * each
    return updates, spent
