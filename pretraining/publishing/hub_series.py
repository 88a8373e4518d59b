"""A series on the hub: one repository, a branch for every checkpoint (`tokens-1e6`), and on main the largest.

It is pushed by a process of its own while training goes on (`hub_process.py`), or by launch/push.py.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from yaml import YAMLError

from pretraining.checkpoints.origin import run_digest
from pretraining.checkpoints.series import SCHEMA_VERSION, SERIES_NAME, read_series, run_named_in
from runtime.files.foreign import reason_of
from runtime.files.whole_files import sha256_of
from runtime.hub_repository import (
    CARD,
    MAIN,
    WEIGHTS,
    Content,
    HubRepository,
    NotPushed,
    files_of,
    hub_card,
    said_plainly,
    sha256_there,
    with_patience,
)
from runtime.options.exit_status import DONE, run_command
from runtime.plurals import counted
from runtime.processes.fault_points import fault_point
from runtime.processes.liveness import end_or_watch

PLAIN_BELOW = 10_000  # smaller budgets are written out: hours-0.5, tokens-2000
Say = Callable[[str], None]


@dataclass(frozen=True)
class HubPlace:
    """Where a model goes, and what its card says that no record holds."""

    repository: str
    private: bool = False
    license: str | None = None
    language: str | None = None

    def opened(self) -> HubRepository:
        """The repository, which is made if it is missing. ValueError where the token may not write there."""
        repository = HubRepository(self.repository, self.private)
        repository.create()
        return repository

    def check_account(self) -> None:
        """ValueError where there is no valid token; NotPushed where the hub is away. Whether it may write, only a
        push shows."""
        HubRepository(self.repository).whoami()

    def card(self, folder: Path, revision: str = MAIN, more: str = "") -> bytes:
        """The card of a model's folder for this place. ValueError, naming the file, where it is damaged."""
        try:
            text = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
            card = hub_card(text, self.repository, revision, license=self.license, language=self.language, more=more)
            return card.encode()
        except (ValueError, TypeError, RecursionError, YAMLError) as error:
            raise ValueError(
                f"{folder / CARD} has no metadata that can be read ({reason_of(error)}): restore it, or remove it"
            ) from error


def revision_of(entry: Mapping[str, Any]) -> str:
    """The branch of an entry of series.json: `tokens-1e6`, `tokens-2.4e6-raw`, `hours-0.5`; of scratch `tokens-0`."""
    unit = str(entry.get("budget_unit", "tokens"))
    amount = entry.get("budget") if unit != "tokens" else None
    budget = float(entry["budget_tokens"] if amount is None else amount)
    kind = "-raw" if entry["kind"] == "raw" and budget else ""
    return f"{unit}-{amount_text(budget)}{kind}"


def amount_text(amount: float) -> str:
    """1000000.0 -> "1e6", 2400000.0 -> "2.4e6", 1234567.8 -> "1.234568e6", 2000.0 -> "2000", 0.05 -> "0.05"."""
    exact = Decimal(round(amount) if amount >= 100 else repr(float(amount))).normalize()
    return f"{exact:f}" if amount < PLAIN_BELOW else f"{exact:e}".replace("e+", "e")


def revisions_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The branch of each checkpoint of a series. ValueError if two have the same."""
    names = [revision_of(row) for row in rows]
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise ValueError(f"two checkpoints of the series would be the branch {twice[0]}: push them from two folders")
    return names


def largest_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The checkpoint that main holds: the largest budget's, annealed before raw."""
    return max(rows, key=lambda row: (row["budget_tokens"], row["kind"] == "annealed"))


def push_series(directory: Path, place: HubPlace, say: Say = print) -> int:
    """Push what the hub lacks of a run's series, the smallest budget first and main last; returns the commits made.

    Main has the largest checkpoint so far, series.json with the run's identity and each checkpoint's branch, and a card
    that lists them. Another run than main names is refused before anything is pushed. Once the run is known to be the
    one that is there, by its identity or because a branch holds its own weights, a checkpoint that is refused, since it
    was trained again on another machine, is left out, also of main's lists, and the others are pushed; main then also
    moves on from the weights that a refused branch of a smaller budget holds.

    Raises ValueError and NotPushed as `HubRepository`, for what was refused once the rest is pushed, and ValueError for
    a folder without a series and for another run.
    """
    rows = read_series(directory)
    if not rows:
        raise ValueError(f"{directory / SERIES_NAME} lists no checkpoint yet: push it once the run has exported one")
    revisions, repository = revisions_of(rows), place.opened()
    own, theirs = run_digest(directory), run_there(repository)
    if own and theirs and own != theirs:
        raise ValueError(
            f"{place.repository} holds the series of another run ({SERIES_NAME} on {MAIN} names {theirs[:12]}, this "
            f"one is {own[:12]}): push to another repository"
        )
    commits, is_same_run = 0, own is not None and own == theirs
    refused: dict[str, ValueError] = {}  # by branch
    for row, revision in zip(rows, revisions, strict=True):
        folder = Path(row["path"])
        try:
            files = {**files_of(folder), CARD: place.card(folder, revision)}
            is_new = repository.push(files, revision, f"{row['tokens_seen']:,.0f} tokens, {row['kind']}")
        except ValueError as error:
            if not is_same_run:
                raise
            refused[revision] = error
            continue
        if is_new:
            commits += 1
            say(f"pushed {place.repository} at {revision}")
        is_same_run = is_same_run or not is_new
        fault_point("hub.between_checkpoints")
    there = {revision: row for row, revision in zip(rows, revisions, strict=True) if revision not in refused}
    last = largest_of(list(there.values()))

    def replaceable() -> set[str]:
        own = {sha256_of(Path(row["path"]) / WEIGHTS) for row in rows}
        smaller = [name for name, row in zip(revisions, rows, strict=True) if largest_of([row, last]) is last]
        held = (repository.files(name).get(WEIGHTS) for name in smaller if name in refused)
        return own | {sha256_there(file) for file in held if file is not None}

    try:
        commits += push_main(directory, place, repository, there, last, replaceable, say)
    except ValueError as error:
        if not refused:
            raise
        refused[MAIN] = error
    if refused:
        raise ValueError("; ".join(dict.fromkeys(map(str, refused.values())))) from next(iter(refused.values()))
    return commits


def run_there(repository: HubRepository) -> str | None:
    """The run that the list on main names; None where there is no list, or an earlier version's or a damaged one."""
    if SERIES_NAME not in repository.files():
        return None
    with TemporaryDirectory() as scratch, said_plainly(repository.name):
        fetched = with_patience(lambda: repository.api.hf_hub_download(repository.name, SERIES_NAME, local_dir=scratch))
        try:
            return run_named_in(Path(fetched))
        except ValueError:
            return None  # main gets a new one


def push_main(
    directory: Path,
    place: HubPlace,
    repository: HubRepository,
    there: Mapping[str, Mapping[str, Any]],
    last: Mapping[str, Any],
    replaceable: Callable[[], Collection[str]],
    say: Say,
) -> bool:
    """Push the checkpoint `last` to main, with the list of those that are `there` by branch; False if it has it all."""
    rows, revisions, folder = list(there.values()), list(there), Path(last["path"])
    files = {**files_of(folder), CARD: place.card(folder, more=series_section(rows, revisions, place.repository))}
    files[SERIES_NAME] = series_there(directory, rows, revisions)
    is_new = repository.push(files, MAIN, f"Main is {revision_of(last)}", replaceable=replaceable)
    if is_new:
        say(f"pushed {place.repository} at {MAIN}, which is {revision_of(last)}")
    return is_new


def series_there(directory: Path, rows: Sequence[Mapping[str, Any]], revisions: Sequence[str]) -> Content:
    """series.json as it is on the hub: the run's identity, each path relative, and its branch."""
    root = directory.resolve()
    entries = [
        {**row, "path": str(Path(row["path"]).relative_to(root)), "revision": revision}
        for row, revision in zip(rows, revisions, strict=True)
    ]
    run = run_digest(directory)
    named = {} if run is None else {"run": run}
    return (json.dumps({"schema_version": SCHEMA_VERSION, **named, "checkpoints": entries}, indent=2) + "\n").encode()


def series_section(rows: Sequence[Mapping[str, Any]], revisions: Sequence[str], repository: str) -> str:
    """The part of main's card that lists the checkpoints."""
    lines = [
        "\n## Checkpoints\n",
        "Each checkpoint of the run is a branch; this one is the largest. `annealed`: the learning rate went to zero",
        "at this budget; `raw`: in the middle of the schedule.\n",
        "| revision | kind | tokens seen | FLOPs | validation loss | validation accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for row, revision in zip(rows, revisions, strict=True):
        cells = [f"`{revision}`", row["kind"], f"{row['tokens_seen']:,.0f}", f"{row['flops']:.3g}"]
        figures = (row["validation_loss"], row["validation_accuracy"])
        cells += ["-" if figure is None else f"{figure:.4f}" for figure in figures]
        lines.append(f"| {' | '.join(cells)} |")
    example = revisions[min(1, len(revisions) - 1)]
    lines += [
        "\n```python",
        "from transformers import AutoModelForMaskedLM\n",
        f'model = AutoModelForMaskedLM.from_pretrained("{repository}", revision="{example}")',
        "```\n",
    ]
    return "\n".join(lines)


def pushed_text(commits: int, place: HubPlace) -> str:
    """The closing sentence of a push."""
    address = f"https://huggingface.co/{place.repository}"
    return f"{counted(commits, 'commit')} made: {address}" if commits else f"nothing to push: all of it is at {address}"


def worker_arguments(directory: Path, place: HubPlace, parent: int) -> str:
    """The argument of `main`."""
    return json.dumps({"directory": str(directory.resolve()), "parent": parent, "place": asdict(place)})


def main(argv: Sequence[str] | None = None) -> int:
    """The process that pushes while training goes on; ends with the process that started it."""
    given = json.loads((sys.argv[1:] if argv is None else argv)[0])
    if given["parent"] != os.getpid():
        end_or_watch(given["parent"])

    def work() -> int:
        push_series(Path(given["directory"]), HubPlace(**given["place"]), say=lambda text: print(text, flush=True))
        return DONE

    return run_command(work, memory_remedy="push later with launch/push.py")


__all__ = ["HubPlace", "NotPushed", "push_series"]
