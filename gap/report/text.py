"""The texts of the report between its charts and tables."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import chain

from gap.analysis.results import Analysis, MacroAverage, TaskResult
from gap.analysis.wording import percent_text, points_text, tokens_text
from gap.cells.store import LINEAR_PROBE
from gap.report.chart_list import DrawnChart, Place
from gap.report.tables import (
    Part,
    Table,
    cell_table,
    certainty_table,
    checkpoint_table,
    closed_text,
    control_table,
    crossing_table,
    forecast_table,
    label_table,
    probe_table,
    score_text,
)
from gap.tasks.corpus_search import RUN_TOKENS
from runtime.options.command_line import arguments_of
from runtime.plurals import counted

METHOD = (
    "Budgets count the non-padding tokens a checkpoint has seen. Gap closed is (S(b) - S(scratch)) / (S(reference) - "
    "S(scratch)), the ratio of means over seeds; the unigram floor of a zero-shot task, or the checkpoint that a "
    "series continues, takes the place of scratch. Intervals resample pretraining seeds, fine-tuning seeds and "
    "examples together (after the multi-bootstrap of Sellam et al. 2022), with clusters of examples kept whole. "
    "Budgets are paired by examples and by pretraining seed, not by fine-tuning seed, which does something else to "
    "each checkpoint. The part of the seeds is widened by Student's t, because the plain percentile interval is too "
    "short with few seeds; with several pretraining runs it is the spread of the runs' own means; with one, the "
    "spread over the fine-tuning seeds of one checkpoint is estimated with the help of the task's others, as far as "
    "they are alike. What these intervals cover was simulated (benchmarks/coverage.md). The curve is isotonic and "
    "joined by monotone cubics in log-tokens; a crossing is read off a curve refitted to every draw, and never beyond "
    "the budgets that were run."
)
LIMITS = (
    "An interval covers the seeds and examples that were resampled, not another corpus, model size, tokenizer or "
    "hyper-parameter search. With one pretraining run it is about this run. Failed runs are counted and stay in every "
    "mean. A forecast is not a measurement."
)
FORECAST = (
    "A forecast spans the curves that fit the budgets: a sigmoid, a power law towards a ceiling, a straight line in "
    "log-tokens. It is given only where every earlier forecast of its reach or less, from four or more budgets, held: "
    "the measured score lay inside its interval, widened by that score's own uncertainty. "
    "In simulated studies (benchmarks/forecasting.md) such rows covered the score in 86 to 99 % where the curve went "
    "on as one of these; a step beyond the largest budget was not foreseen: 0 to 3 % at ten times it."
)
CERTAINTY = (
    "Loss: the mean of minus the natural logarithm of the probability that the right answer is given. Brier score: the "
    "mean square of confidence minus right (1) or wrong (0). Overconfidence: the mean confidence minus the share that "
    "is right, 0 for a calibrated model. The intervals are from the draws of the score, each by itself: of twenty "
    "differences without a cause one is expected to exclude 0."
)
PROBE = (
    "A linear probe (Alain and Bengio 2017) freezes the encoder and trains a linear model on its hidden states to the "
    "optimum, with an L2 penalty whose strength is chosen on held-out training examples. It says what can be read "
    "from the representations linearly, not what fine-tuning makes of them: a checkpoint may score low here and high "
    "after fine-tuning. A fine-tuning seed changes a probe only where it draws the weights (scratch), so a pretraining "
    "run has one; its interval is then about the examples."
)
LONG_TABLE = 8


def task_parts(task: TaskResult, analysis: Analysis, charts: Sequence[DrawnChart]) -> list[Part]:
    """All parts under one task's heading."""
    return list(chain(_curve_parts(task, analysis, charts), _control_parts(task, charts), _detail_parts(task, charts)))


def chart_parts(charts: Sequence[DrawnChart], place: Place | None = None) -> list[Part]:
    """The charts at one position; None: all."""
    return [Part(chart.title, chart.note, chart=chart.id) for chart in charts if place in (None, chart.place)]


def macro_parts(macro: MacroAverage, charts: Sequence[DrawnChart]) -> list[Part]:
    """The average over tasks, every task with the same weight."""
    explained = (
        f"All tasks count equally: {', '.join(macro.tasks)}. The intervals come from joint draws: seeds with the same "
        "number move all tasks together, examples are drawn for each task separately."
    )
    table = Part(text=explained, table=macro_table(macro))
    return [
        *chart_parts(charts),
        table,
        *(Part(text=note) for note in macro.notes),
    ]


def macro_table(macro: MacroAverage) -> Table:
    """Means over the tasks, one row per checkpoint."""
    scored = macro.metric is not None
    rows = [
        (
            checkpoint.name,
            *([score_text(checkpoint.score)] if scored else []),
            "" if checkpoint.gap_closed is None else closed_text(checkpoint.gap_closed),
            f"{checkpoint.failed_runs} of {checkpoint.runs}",
        )
        for checkpoint in macro.checkpoints
    ]
    return Table(("checkpoint", *(["mean score"] if scored else []), "mean gap closed", "failed runs"), rows)


def method_parts(analysis: Analysis) -> list[Part]:
    """The method, its limits, and the versions."""
    parts = [
        Part(
            "Method",
            f"{METHOD} {analysis.draws:,} draws, {100 * analysis.confidence:g} % intervals, seed {analysis.seed}.",
        ),
        Part("Limits", LIMITS),
    ]
    versions = Table(("package", "version"), list(analysis.versions.items()))
    return [*parts, *note_parts(analysis), *made_parts(analysis), Part("Versions of this analysis", table=versions)]


def note_parts(analysis: Analysis) -> list[Part]:
    """The notes and warnings of the study."""
    return [Part(text=note, style="soft") for note in analysis.notes]


def made_parts(analysis: Analysis, of: str = "") -> list[Part]:
    """A study's commands and options, and when and on what its cells were trained; `of` names one of several."""
    parts = [Part(f"Commands{of}", code="\n".join(analysis.commands))] if analysis.commands else []
    if analysis.made:
        parts.append(
            Part(
                f"Made with{of}",
                table=Table(("what", "as it was"), list(analysis.made.items()), wrapped=frozenset({1})),
            )
        )
    return parts


def command_text(program: str, argv: Sequence[str] | None) -> str:
    """A command line (None: that of the process) for the report, quoted where a shell would need it."""
    return f"{program} {shlex.join(arguments_of(argv))}".strip()


def _curve_parts(task: TaskResult, analysis: Analysis, charts: Sequence[DrawnChart]) -> Iterator[Part]:
    size = "examples held fixed" if task.num_examples is None else counted(task.num_examples, "example")
    if task.num_clusters and task.num_clusters != task.num_examples:
        size += f" in {counted(task.num_clusters, task.cluster)}"
    given = f" All intervals are {task.conditional}." if task.conditional else ""
    yield Part(
        text=f"Gap from {task.floor} to {task.reference}: {points_text(task.gap)} points of "
        f"{task.metric.replace('_', ' ')}; {size}.{_p_text(task)}{given}"
    )
    if task.gap.refused:
        yield Part(text=f"The gap has no interval: {task.gap.refused}.", style="warn")
    elif not task.gap_resolved:
        said = "The interval of the gap includes 0: there is no gap to close that this study resolves."
        if task.gap.is_below_zero:
            said = (
                f"Pretraining lowers the score here: {task.reference} is below {task.floor}, and the interval excludes "
                "0."
            )
        yield Part(text=said, style="warn")
    for warning in task.warnings:
        yield Part(text=warning, style="warn")
    yield from chart_parts(charts, "gap")
    if any(curve.crossings for curve in task.curves):
        yield Part(
            "Tokens to a share of the gap", table=crossing_table(task, analysis.currency, priced=analysis.priced)
        )
    yield from chart_parts(charts, "crossings")
    for curve in task.curves:
        slope, ends = curve.points_per_doubling, [tokens_text(end) for end in curve.budgets]
        if slope is not None:
            unless = f" ({slope.refused})" if slope.refused else ""
            text = f"{points_text(slope)} points per doubling of the budget{unless}, {curve.kind}, from {ends[0]} to "
            yield Part("Points per doubling", f"{text}{ends[1]} tokens (a straight line in log tokens).")


def _p_text(task: TaskResult) -> str:
    if task.gap_p_value is None or task.gap_adjusted_p_value is None:
        return ""
    several = task.gap_p_value != task.gap_adjusted_p_value
    corrected = f", corrected for the number of tasks (Holm) {task.gap_adjusted_p_value:.2g}" * several
    return f" p = {task.gap_p_value:.2g}{corrected}."


def _control_parts(task: TaskResult, charts: Sequence[DrawnChart]) -> Iterator[Part]:
    forecast = forecast_table(task)
    if forecast:
        yield Part("Forecast (not measured) and backtest", FORECAST, table=forecast)
    for curve in task.curves:
        if curve.forecast_refused and curve.crossings:
            yield Part(text=f"No forecast for {curve.kind} checkpoints: {curve.forecast_refused}.")
    controls = control_table(task)
    if controls:
        yield Part("Controls", table=controls)
    if task.plateau is not None:
        yield Part(
            "Is scratch stuck?",
            f"Over the last doublings of its epochs the scratch score moves by {percent_text(task.plateau, digits=2)} "
            f"per doubling: {task.plateau_verdict}.",
        )
    probes = probe_table(task)
    if probes:
        yield Part("Linear probe", f"{PROBE} {_agreement_text(task)}", table=probes)
    yield from chart_parts(charts, "controls")
    labels = label_table(task)
    if labels:
        yield Part(
            "What pretraining is worth in labelled examples",
            f"The labels with which {task.floor} would score the same (effective data transferred, Hernandez et al. "
            "2021).",
            table=labels,
            folded=counted(len(labels.rows), "checkpoint") if len(labels.rows) > LONG_TABLE else "",
        )


def _agreement_text(task: TaskResult) -> str:
    """The rank agreement of probe and fine-tuning, and what a cell of both costs."""
    assert task.probe is not None
    found, pairs = task.probe.agreement, task.probe.checkpoints
    ends = "" if found.low is None or found.high is None else f" [{found.low:.2f}, {found.high:.2f}]"
    ranked = counted(task.probe.ranked, "checkpoint")
    if found.refused:
        said = f"Rank agreement with fine-tuning: not given ({found.refused})"
    else:
        said = f"Rank agreement with fine-tuning over {ranked} (Kendall's tau-b): {found.value:.2f}{ends}"
    tuned, probed = (
        sum(seconds) / len(pairs)
        for seconds in ([pair.finetuned_seconds for pair in pairs], [pair.probe_seconds for pair in pairs])
    )
    cost = f"A cell takes {probed:.3g} seconds, one that is fine-tuned {tuned:.3g}, its share of the search included"
    return f"{said}. {cost}."


def _detail_parts(task: TaskResult, charts: Sequence[DrawnChart]) -> Iterator[Part]:
    tuned = [checkpoint for checkpoint in task.checkpoints if checkpoint.control != LINEAR_PROBE]
    failed = sum(checkpoint.failed_runs for checkpoint in tuned)
    runs = sum(checkpoint.runs for checkpoint in tuned)
    yield Part(
        "Checkpoints, failed runs and calibration",
        f"{failed} of {counted(runs, 'run')} failed, {task.failures} (score at the majority rate, no variety in the "
        "predictions, or not finite); every mean includes them.",
        table=checkpoint_table(task),
    )
    certainty = certainty_table(task)
    if certainty:
        yield Part("Loss and calibration", _certainty_text(task), table=certainty)
    yield from chart_parts(charts, "checkpoints")
    yield _contamination_part(task)
    if task.peeking_gain is not None:
        yield Part(
            text="Picking learning rate and epochs on the scored examples would have given "
            f"{100 * task.peeking_gain:+.2f} points more; they were picked on held-out training data.",
            style="warn",
        )
    if task.plan is not None:
        plan = task.plan
        needed = (
            plan.reason
            or f"with {counted(plan.finetuning_seeds or 0, 'fine-tuning seed')} the interval excludes 0 in "
            f"{plan.power:.0%} of such studies"
        )
        yield Part(
            "Planner",
            f"To see a difference of {counted(100 * plan.difference, 'point', written=f'{100 * plan.difference:.3g}')} "
            f"between {plan.between} with "
            f"{counted(plan.pretraining_seeds, 'pretraining run')}: {needed}.",
        )
    if task.resolvable_gap is not None:
        yield Part("Planner", text=f"With a power of 80 %, {task.resolvable_gap}.")
    for number, note in enumerate(task.notes):
        yield Part("" if number else "Notes", text=note)
    cells = cell_table(task)
    yield Part("", table=cells, folded="The cell" if len(cells.rows) == 1 else f"All {len(cells.rows)} cells")


def _certainty_text(task: TaskResult) -> str:
    """What the measures are, and how many examples they leave out."""
    measures = task.checkpoints[0].measures
    rated = min(measured.num_examples for measured in measures.values())
    total = task.num_examples or 0
    left_out = (
        f" {counted(total - rated, 'example')} of {total} lack one of them and are left out." if rated < total else ""
    )
    return f"{CERTAINTY}{left_out}"


def _contamination_part(task: TaskResult) -> Part:
    """How many scored texts occur in the pretraining corpus and how they affect the scores, or why it is unknown."""
    if task.contaminated_examples:
        rows = [
            (
                checkpoint.name,
                f"{100 * checkpoint.score.value:.1f}",
                f"{100 * checkpoint.score_without_contaminated:.1f}",
            )
            for checkpoint in task.checkpoints
            if checkpoint.score_without_contaminated is not None
        ]
        count = task.contaminated_examples
        verb = "has" if count == 1 else "have"
        sentence = f"{counted(count, 'example')} {verb} text that was found in the pretraining corpus."
        table = Table(("checkpoint", "score", "without them"), rows, frozenset({1, 2})) if rows else None
        return Part("Contamination", sentence + _short_text(task), table=table)
    if task.contamination_not_searched is None:
        sentence = f"The pretraining corpus was searched: no scored text was found in it.{_short_text(task)}"
        return Part("Contamination", sentence)
    sentence = f"The pretraining corpus was not searched for the scored texts: {task.contamination_not_searched}."
    return Part("Contamination", sentence)


def _short_text(task: TaskResult) -> str:
    """How many texts have no run of tokens to search for; empty where there are none, and where it is unknown."""
    short = task.contamination_too_short
    if not short:
        return ""
    verbs = ("has", "was") if short == 1 else ("have", "were")
    return f" {counted(short, 'text')} {verbs[0]} fewer than {RUN_TOKENS} tokens and {verbs[1]} not searched for."
