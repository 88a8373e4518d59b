"""How many updates a plan takes, where its budget says so beforehand."""

from __future__ import annotations

import math

from pretraining.plan.plan import Plan


def planned_updates(plan: Plan) -> tuple[int, int] | None:
    """Updates of the trunk and of all segments, with full rows; None for a budget in hours.

    As the training loop counts: a segment ends with the first update at or past its end, a branch leaves the trunk
    where it was.
    """
    if plan.budget.unit == "hours":
        return None
    trunk = branches = 0
    spent = 0.0
    for segment in plan.segments:
        updates, after = _until(plan, segment.end, trunk, spent)
        if segment.is_branch:
            branches += updates
        else:
            trunk, spent = trunk + updates, after
    return trunk, trunk + branches


def _until(plan: Plan, end: float, done: int, spent: float) -> tuple[int, float]:
    """Updates from the one numbered `done`, with `spent` used, until `end` is reached; and what is used then."""
    rows, updates = plan.options.global_batch_rows, 0
    while spent < end:
        row = (done + updates) * rows
        each = float(plan.tokens_per_update) if plan.budget.unit == "tokens" else plan.flops_of_update(row)
        needed = math.ceil((end - spent) / each)
        following = [first for first, _ in plan.lengths if first > row]
        count = min([needed, *(-(-(first - row) // rows) for first in following)])
        updates, spent = updates + count, spent + count * each
    return updates, spent
