"""The statistics of one task, from its table of cells to its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import spearmanr

from gap.analysis.controls import compare_probes, control_notes
from gap.analysis.forecasts import Forecasts, KnownCurve, forecast_curve
from gap.analysis.labels import label_worths
from gap.analysis.planning import plan_of, resolvable_gap
from gap.analysis.results import CheckpointResult, Crossing, CurveResult, Dot, TaskResult
from gap.analysis.tables.costs import UNITS, Prices, convert_tokens, find_cost
from gap.analysis.tables.task_study import TaskStudy
from gap.analysis.tables.task_table import FLOOR, SCRATCH, START, CheckpointKey, describe
from gap.analysis.wording import answer_text, points_text
from gap.cells.plan import SELF_PRETRAINED
from gap.cells.store import LINEAR_PROBE
from gap.intervals.failures import failure_rate, unsteady
from gap.intervals.interval import Estimate, quantiles, statistic_draws
from gap.intervals.variance import Floats
from gap.measures.curve import MonotoneCurve
from gap.measures.trend import LAST_DOUBLINGS, doubling_slope, plateau_verdict

LEVELS = (0.5, 0.9, 0.95, 0.99)
LINE_POINTS = 100
USUAL_CONFIDENCE = 0.95  # intervals of another one, as after a pilot, say so wherever they stand


def analyse_task(study: TaskStudy, prices: Prices, resolve: float | None = None) -> TaskResult:
    """Every number that is reported about one task; `resolve`: the difference (0..1) that seeds are planned for."""
    table = study.table
    gap = study.difference(study.reference, study.scratch)
    resolved = not gap.includes_zero and gap.value > 0
    name = describe(table.checkpoints[study.reference])
    checkpoints = tuple(_checkpoint(study, column, resolved) for column in range(len(table.checkpoints)))
    curves = tuple(_curve(study, kind, resolved) for kind in ("annealed", "raw") if study.budgets(kind))
    first = [] if study.is_continued else [study.scratch]  # a checkpoint that is continued is one run, and given
    own = [*first, *study.budgets("annealed"), *study.budgets("raw")]
    runs = min(len(table.grids[column].pretraining_seeds) for column in own)
    of_width = "" if study.confidence == USUAL_CONFIDENCE else f"of {100 * study.confidence:g} % confidence"
    conditional = ", ".join(filter(None, (of_width, "given this pretraining run" if runs == 1 else ""))) or None
    slope, verdict = _plateau(study)
    finetuned = [each for each in checkpoints if each.control != LINEAR_PROBE]
    peeked = [
        float(cell.details["peeked_score"]) - cell.score
        for cell in table.cells
        if cell.control != "same_arguments" and isinstance(cell.details.get("peeked_score"), (int, float))
    ]
    return TaskResult(
        task=table.task,
        metric=table.metric,
        num_examples=None if table.examples is None else table.examples.num_examples,
        num_clusters=None if table.examples is None else table.examples.num_clusters,
        conditional=conditional,
        reference=name,
        floor=study.floor,
        reference_in_series=study.in_series,
        gap=gap,
        gap_resolved=resolved,
        gap_p_value=None if gap.refused else study.p_value(study.reference, study.scratch),
        gap_adjusted_p_value=None,
        checkpoints=checkpoints,
        curves=curves,
        labels=tuple(label_worths(study.table, study.draws, study.confidence)),
        plateau=slope,
        plateau_verdict=verdict,
        plan=plan_of(study, gap, resolved, resolve),
        loss_rank_correlation=_loss_correlation(checkpoints),
        peeking_gain=float(np.mean(peeked)) if peeked else None,
        contaminated_examples=0 if table.examples is None else int(table.examples.contaminated.sum()),
        contamination_not_searched=table.not_searched,
        contamination_too_short=table.too_short,
        answer=answer_text(
            table.task,
            gap,
            resolved,
            name,
            study.in_series,
            conditional,
            curves,
            checkpoints,
            prices.currency,
            prices.per_device_hour > 0,
            study.floor,
        ),
        warnings=tuple(_warnings(finetuned)),
        failures=failure_rate(
            sum(each.failed_runs for each in finetuned),
            sum(each.runs for each in finetuned),
            confidence=study.confidence,
        ),
        notes=(*table.notes, *_dip_notes(study, resolved), *_notes(study), *control_notes(study)),
        probe=compare_probes(study),
        resolvable_gap=resolvable_gap(study, gap),
    )


def _warnings(checkpoints: Sequence[CheckpointResult]) -> list[str]:
    """What makes the intervals of some checkpoints too short, in one sentence."""
    found = unsteady((each.name, [dot.score for dot in each.dots], each.failed_runs) for each in checkpoints)
    if not found:
        return []
    return [
        f"{'; '.join(found)}. Where some runs fail and others do not, an interval from a few seeds is too short, "
        "however it is computed: look at the single runs, and use more seeds or a steadier recipe."
    ]


def _checkpoint(study: TaskStudy, column: int, resolved: bool) -> CheckpointResult:
    table, checkpoint = study.table, study.table.checkpoints[column]
    cells = table.cells_of(column)
    closed = None
    if checkpoint.control == LINEAR_PROBE:
        pass  # the gap is that of fine-tuning
    elif resolved and column not in (study.scratch, study.reference):
        involved = [column, study.scratch, study.reference]
        closed = study.estimate(lambda scores: study.closed([column])(scores)[:, 0], involved)
    elif resolved:
        closed = Estimate(float(column == study.reference), refused="by definition")
    without = None
    if table.examples is not None and table.examples.clean_scores is not None:
        without = float(table.examples.clean_scores[list(table.grids[column].cells)].mean())
    names = sorted({name for cell in cells for name, value in cell.metrics.items() if isinstance(value, (int, float))})
    scores = np.array([cell.score for cell in cells])
    return CheckpointResult(
        name=describe(checkpoint),
        kind=checkpoint.kind,
        budget_tokens=checkpoint.budget_tokens,
        control=checkpoint.control or (None if checkpoint.on_the_curve else "variant"),
        label_fraction=checkpoint.label_fraction,
        epochs_factor=checkpoint.epochs_factor,
        layout=" x ".join(str(len(seeds)) for seeds in table.grids[column].seeds),
        score=study.score(column),
        median=float(np.median(scores)),
        failed_runs=sum(cell.failed for cell in cells),
        runs=len(cells),
        gap_closed=closed,
        metrics={
            name: float(np.mean([cell.metrics[name] for cell in cells if name in cell.metrics])) for name in names
        },
        cost=None  # of another corpus than the series'
        if checkpoint.control == SELF_PRETRAINED
        else find_cost(study.costs, checkpoint.kind, checkpoint.budget_tokens),
        score_without_contaminated=without,
        dots=tuple(
            Dot(
                cell.pretraining_seed,
                cell.finetuning_seed,
                cell.score,
                cell.status,
                cell.seconds,
                cell.details.get("learning_rate"),
                cell.fingerprint,
            )
            for cell in cells
        ),
    )


def _curve(study: TaskStudy, kind: str, resolved: bool) -> CurveResult:
    columns = study.budgets(kind)
    budgets = [float(study.table.checkpoints[column].budget_tokens or 0) for column in columns]
    line: tuple[tuple[float, float], ...] = ()
    crossings: tuple[Crossing, ...] = ()
    if resolved and len(columns) > 1:
        shares = study.closed(columns)(study.draws.observed[None])
        falls = falls_of(study, columns)
        # Where the score falls again, the drawn curve joins the budgets: a fit that never falls would hide it.
        curve = MonotoneCurve(np.log10(budgets), shares) if falls else MonotoneCurve.fit(budgets, shares)
        tokens = np.geomspace(budgets[0], budgets[-1], LINE_POINTS)
        tokens[0], tokens[-1] = budgets[0], budgets[-1]
        line = tuple(zip(tokens.tolist(), curve.at(tokens)[0].tolist(), strict=True))
        levels = [level for level in LEVELS if not (study.in_series and level > 0.95)]
        crossings = tuple(_crossing_after_falls(study, kind, columns, falls, level) for level in levels)
    slope = None
    if len(columns) > 1:
        slope = study.estimate(lambda scores: doubling_slope(budgets, scores[:, columns]), columns)
    if resolved:
        known = KnownCurve(study.estimate, study.draws.observed, study.beginning, columns, budgets, study.lowest)
        forecasts = forecast_curve(known)
    else:  # a trend fitted to noise can predict anything: 98 % at ten times a budget that closed no gap
        forecasts = Forecasts(refused="the gap is not resolved, so there is no trend to follow")
    ends, given, withheld = (budgets[0], budgets[-1]), forecasts.given, forecasts.withheld
    return CurveResult(kind, ends, line, crossings, slope, given, withheld, forecasts.backtests, forecasts.refused)


def falls_of(study: TaskStudy, columns: Sequence[int]) -> list[tuple[int, int, Estimate]]:
    """Budgets that score less than the best before them: (the best, the later one, the resolved difference).

    The confidence is shared by the comparisons (Bonferroni), so that a flat curve seldom has one.
    """
    strict = replace(study, confidence=1 - (1 - study.confidence) / max(1, len(columns) - 1))
    scores, found = study.draws.observed, []
    for number, later in enumerate(columns[1:], start=1):
        best = max(columns[:number], key=lambda column: scores[column])
        change = strict.difference(later, best)
        if change.is_below_zero:
            found.append((best, later, change))
    return found


def kept_score(study: TaskStudy, columns: Sequence[int]) -> float:
    """The lowest score to which a later budget falls again; infinite where none does."""
    return min((float(study.draws.observed[later]) for _, later, _ in falls_of(study, columns)), default=np.inf)


def _crossing_after_falls(
    study: TaskStudy, kind: str, columns: list[int], falls: Sequence[tuple[int, int, Estimate]], level: float
) -> Crossing:
    """The tokens from which on a share is closed for good: after the last fall below it, if there is one."""
    shares = dict(zip(columns, study.closed(columns)(study.draws.observed[None])[0], strict=True))
    below = [columns.index(later) for best, later, _ in falls if shares[later] < level <= shares[best]]
    rest = columns[below[-1] :] if below else columns
    if below and (len(rest) < 2 or max(shares[column] for column in rest) < level):
        return _lost_again(level)
    budgets = [float(study.table.checkpoints[column].budget_tokens or 0) for column in rest]
    return _crossing(study, kind, rest, budgets, level)


def _dip_notes(study: TaskStudy, resolved: bool) -> list[str]:
    """The budgets whose score falls again, in one note for each kind of checkpoint."""
    notes = []
    for kind in ("annealed", "raw"):
        falls = [
            f"{describe(study.table.checkpoints[later])} {points_text(change)} points against "
            f"{describe(study.table.checkpoints[best])}"
            for best, later, change in falls_of(study, study.budgets(kind))
        ]
        if falls:
            drawn = (
                " A share that is lost there counts as closed only where a later budget closes it again, and the drawn "
                "curve joins the budgets as they are."
            )
            notes.append(f"With more tokens the score falls again: {'; '.join(falls)}.{drawn * resolved}")
    return notes


def _lost_again(level: float) -> Crossing:
    nothing: dict[str, tuple[None, None, None]] = dict.fromkeys(list(UNITS)[1:], (None, None, None))
    return Crossing(level, None, None, None, "lost_again", False, False, "the score falls again", nothing)


def _crossing(study: TaskStudy, kind: str, columns: list[int], budgets: list[float], level: float) -> Crossing:
    """Tokens to close a share of the gap, from a monotone curve refitted to every draw."""
    share = study.closed(columns)

    def statistic(scores: Floats) -> Floats:
        return MonotoneCurve.fit(budgets, share(scores)).crossing(level)

    value = float(statistic(study.draws.observed[None])[0])
    refused = study.table.refusal([*columns, study.scratch, study.reference])
    low, high = (
        (np.nan, np.nan)
        if refused
        else quantiles(statistic_draws(statistic, study.draws, study.confidence), study.confidence)
    )
    ends = [float(10**end) if np.isfinite(end) else None for end in (value, low, high)]
    return Crossing(
        level=level,
        tokens=ends[0],
        low=ends[1],
        high=ends[2],
        state="measured" if np.isfinite(value) else ("not_reached" if value > 0 else "already_reached"),
        low_open=bool(low == -np.inf),
        high_open=bool(high == np.inf),
        refused=refused,
        other_units={
            unit: (
                convert_tokens(study.costs, kind, ends[0], unit),
                convert_tokens(study.costs, kind, ends[1], unit),
                convert_tokens(study.costs, kind, ends[2], unit),
            )
            for unit in list(UNITS)[1:]
        },
    )


def _plateau(study: TaskStudy) -> tuple[Estimate | None, str | None]:
    """The slope of scratch over the last doublings of epochs."""
    column_of = {
        checkpoint.epochs_factor: column
        for column, checkpoint in enumerate(study.table.checkpoints)
        if checkpoint.kind == "scratch" and checkpoint.control == "scratch_longer" and checkpoint.label_fraction == 1.0
    }
    own = study.table.find(SCRATCH)
    column_of[1.0] = study.scratch if own is None else own
    factors = sorted(column_of)
    if len(factors) < 2:
        return None, None
    columns = [column_of[factor] for factor in factors]
    slope = study.estimate(lambda scores: doubling_slope(factors, scores[:, columns], last=LAST_DOUBLINGS), columns)
    return slope, plateau_verdict(slope)


def _loss_correlation(checkpoints: Sequence[CheckpointResult]) -> float | None:
    pairs = [
        (checkpoint.cost.validation_loss, checkpoint.score.value)
        for checkpoint in checkpoints
        if checkpoint.control is None and checkpoint.cost is not None and checkpoint.cost.validation_loss is not None
    ]
    if len(pairs) < 3:
        return None
    losses, scores = zip(*pairs, strict=True)
    if len(set(losses)) == 1 or len(set(scores)) == 1:
        return None  # constant values have no ranks
    value = float(spearmanr(losses, scores).statistic)
    return value if np.isfinite(value) else None


def _continued_note(study: TaskStudy) -> str:
    """Where the lower end of the gap lies, above random weights of its architecture if those were run."""
    how = "as it is" if study.table.zero_shot else "fine-tuned with a search of its own"
    note = f"The gap begins at the checkpoint that the series continues, {how}: it is what further pretraining adds."
    for other, name in ((FLOOR, f"the {describe(FLOOR)}"), (SCRATCH, "random weights in its shape (scratch)")):
        column = study.table.find(other)
        if column is not None:
            change = study.difference(study.scratch, column)
            note += f" That checkpoint scores {points_text(change)} points against {name}."
    return note


def _notes(study: TaskStudy) -> list[str]:
    """Caveats about the numbers, for the reader of the report."""
    table, notes = study.table, []
    if study.is_continued:
        notes.append(_continued_note(study))
    elif table.find(START) is not None:
        notes.append(
            "The checkpoint that the series continues had no masked-language head, and its score is that of a random "
            "one: the gap begins at the unigram floor, and counts what the checkpoint knew before as well."
        )
    if study.in_series:
        notes.append(
            "The reference is the largest budget of this series: 100 % is reached there by definition, so shares are "
            "of this series' gap, and there is no 99 % row."
        )
    else:
        notes.append("The reference has one pretraining run: there is no seed of it to resample.")
        own = table.find(CheckpointKey("reference_scratch", None))
        if table.zero_shot:
            notes.append(
                "The gap mixes pretraining with the reference's size and tokenizer; the unigram floor is that of the "
                "series' tokenizer and corpus."
            )
        elif own is None:
            notes.append(
                "The reference's own architecture was not trained from scratch: if its size or tokenizer differ from "
                "the series', the gap mixes architecture with pretraining."
            )
        else:
            scratch = study.table.find(SCRATCH)
            mixed = study.difference(own, study.scratch if scratch is None else scratch)
            notes.append(
                f"The reference's own architecture from scratch scores {100 * mixed.value:+.1f} points against this "
                "series' scratch: this much of the gap is due to the architecture."
            )
    if table.examples is not None and table.examples.units is None:
        notes.append(f"{table.metric} is not a mean: it is recomputed on every draw's examples.")
    if any(cost.untrained_positions for cost in study.costs):
        notes.append("Some budgets are too small for the longest sequences: their last positions were never trained.")
    return notes
