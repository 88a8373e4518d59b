"""Sentences about the searches: choices at the edge of their grid, and the gap with the same arguments for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gap.cells.job_list import JobList
from gap.cells.plan import Setting
from gap.cells.search.choice import Choice, follow
from runtime.plurals import counted

SHOWN_SETTINGS = 8


def setting_text(setting: Setting) -> str:
    """The setting in a few words."""
    source = setting.source
    where = source.kind if source.budget_tokens is None else f"{source.kind} {source.budget_tokens:,}"
    if source.is_start:
        where = "the starting checkpoint"
    words = [setting.task, "scratch" if source.is_scratch else where, f"run {source.pretraining_seed}"]
    if setting.epochs_factor != 1:
        words.append(f"{setting.epochs_factor:g}x epochs")
    if setting.label_fraction != 1:
        words.append(f"{setting.label_fraction:g} of the labels")
    return ", ".join(words)


def edge_notes(jobs: JobList, records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """For each edge: the settings whose choice is there although the search went as far as it may."""
    found: dict[str, dict[str, None]] = {}
    for setting, seed in jobs.plan.decisions:
        trail = follow(jobs, setting, seed, records)
        for edge in trail.edges:
            assert trail.choice is not None
            epochs = counted(trail.choice.epochs, "epoch", written=f"{trail.choice.epochs:g}")
            value = epochs if "epochs" in edge else f"{trail.choice.learning_rate:g}"
            found.setdefault(edge, {})[f"{setting_text(setting)} ({value})"] = None
    bound = counted(jobs.plan.grid.extensions, "step")
    return [
        f"Warning: the search chose the {edge} that it tried for {_first(list(where))}. What lies beyond may score "
        f"higher; the search may go {bound} beyond its grid: raise --grid_extensions, or give --learning_rates, "
        "--reference_learning_rates or --num_train_epochs that reach further."
        for edge, where in found.items()
    ]


def _first(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_SETTINGS
    return "; ".join(names[:SHOWN_SETTINGS]) + (f" and {more} more" if more > 0 else "")


def same_arguments_notes(jobs: JobList, records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """For each task: the gap on the held-out part with one learning rate for all, and with one for each."""
    notes = []
    tables: dict[Setting, dict[tuple[float, float], float]] = {}
    choices: dict[Setting, Choice] = {}
    for setting, seed in jobs.plan.decisions:
        if setting.source.control is not None:
            continue  # a run beside the series is no end of its gap
        trail = follow(jobs, setting, seed, records)
        if trail.choice is not None and trail.tries and setting.label_fraction == setting.epochs_factor == 1.0:
            scores = [float(records[jobs.fingerprint(search)]["held_out_score"]) for search in trail.tries]
            keys = [(search.learning_rate, search.epochs) for search in trail.tries]
            tables.setdefault(setting, dict(zip(keys, scores, strict=True)))  # of several seeds the first
            choices.setdefault(setting, trail.choice)
    for task in dict.fromkeys(setting.task for setting in tables):
        table = {setting: scores for setting, scores in tables.items() if setting.task == task}
        lower = sorted(
            (entry for entry in table if entry.source.budget_tokens == 0), key=lambda e: not e.source.is_start
        )
        scratch = lower[0] if lower else None
        upper = max(
            (entry for entry in table if entry not in lower and entry.source.kind != "reference_scratch"),
            key=lambda entry: (
                entry.source.budget_tokens is None,
                entry.source.kind == "annealed",
                entry.source.budget_tokens or 0,
            ),
            default=None,
        )
        if scratch is None or upper is None:
            continue
        rate, epochs = choices[upper].learning_rate, choices[upper].epochs
        if (rate, epochs) not in table[scratch]:
            continue
        same = table[upper][rate, epochs] - table[scratch][rate, epochs]
        own = table[upper][rate, epochs] - max(table[scratch].values())
        length = counted(epochs, "epoch", written=f"{epochs:g}")
        notes.append(
            f"{task}: with the same arguments for all (rate {rate:g}, {length}, the reference's choice) "
            f"the gap on the held-out part of training is {100 * same:.1f} points; with a choice for each it is "
            f"{100 * own:.1f} points (one seed)."
        )
    return notes
