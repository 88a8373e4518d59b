"""Fine-tuned models on the hub: the best model of each seed and task, pushed when its run is done."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetuning.run.finished import RESULTS_NAME, read_results
from pretraining.checkpoints.series import SERIES_NAME
from pretraining.publishing.hub_series import HubPlace, push_series, pushed_text
from runtime.hub import require_online
from runtime.hub_repository import CARD, MAIN, NotPushed, files_of
from runtime.processes.failures import Failed

BEST, CONFIG = "best", "config.json"
SEED = re.compile(r"seed-(\d+)")
Say = Callable[[str], None]


@dataclass(frozen=True)
class SavedModel:
    """A model's folder, its task among several ("" for a run of one), and its seed among several."""

    folder: Path
    task: str = ""
    seed: int | None = None


def place_of(options: Any) -> HubPlace:
    """The place that options name."""
    return HubPlace(options.hub_model_id, options.hub_private_repo, options.hub_license, options.hub_language)


def check_push(options: Any, say: Say = print) -> None:
    """Before a run: ValueError where nothing could be pushed. A hub that is away now is a warning."""
    require_online()
    try:
        place_of(options).check_account()
    except NotPushed as error:
        say(f"warning: {error}; the run goes on, and pushes at its end")


def models_of(directory: Path, seeds: Sequence[int] = (), tasks: Sequence[str] = ()) -> list[SavedModel]:
    """The models below a run's folder: best/, seed-N/best/, TASK/best/ and TASK/seed-N/best/.

    Without `seeds` and `tasks` all of them. In the order of the seeds as they were named.
    """
    models = []
    for place in sorted({*directory.glob(BEST), *directory.glob(f"*/{BEST}"), *directory.glob(f"*/*/{BEST}")}):
        parts = place.relative_to(directory).parts[:-1]
        numbers = [int(match[1]) for part in parts if (match := SEED.fullmatch(part))]
        names = [part for part in parts if not SEED.fullmatch(part)]
        wanted = not (seeds and numbers) or numbers[0] in seeds
        wanted &= not (tasks and names) or names[0] in tasks
        if (place / CONFIG).is_file() and wanted and len(numbers) < 2 and len(names) < 2:
            models.append(SavedModel(place, names[0] if names else "", numbers[0] if numbers else None))
    order = {seed: number for number, seed in enumerate(seeds)}

    def rank(model: SavedModel) -> tuple[str, int]:
        return model.task, 0 if model.seed is None else order.get(model.seed, model.seed)

    return sorted(models, key=rank)


def push_models(models: Sequence[SavedModel], place: HubPlace, say: Say = print) -> None:
    """Push each model to its repository and branch, and the first seed of each task to main.

    A model whose run failed is left out, and said. Raises ValueError and NotPushed as `HubRepository`.
    """
    sound = [model for model in models if not _has_failed(model, say)]
    if not sound:
        say("not one run ended well: nothing is pushed")
        return
    commits = 0
    for task in dict.fromkeys(model.task for model in sound):
        own = [model for model in sound if model.task == task]
        there = replace(place, repository=f"{place.repository}-{task}" if task else place.repository)
        repository = there.opened()
        branches = [(model, f"seed-{model.seed}") for model in own if model.seed is not None]
        for model, branch in [*branches, *((model, MAIN) for model in own[:1])]:
            files = {**files_of(model.folder), CARD: there.card(model.folder, branch)}
            if repository.push(files, branch, f"The best model of {model.folder.parent.name}"):
                commits += 1
                say(f"pushed {there.repository} at {branch}")
    say(pushed_text(commits, place))


def push_after_run(options: Any, directory: Path, say: Say = print) -> None:
    """What a recipe does when its run is done. Failed, with the remedy, where the hub lacks a model in the end."""
    tasks = [name.strip().lower() for name in (getattr(options, "task_name", None) or "").split(",") if name.strip()]
    of_seeds = len(options.seeds) > 1  # else the models of seeds there are those of another run
    models = models_of(directory, options.seeds, [] if tasks == ["all"] else tasks)
    models = [model for model in models if (model.seed is not None) == of_seeds]
    if not models:
        raise ValueError(f"--push_to_hub: {directory} holds no {BEST}/ to push: leave --save_model true")
    place = place_of(options)
    try:
        push_models(models, place, say)
    except (NotPushed, ValueError) as error:
        raise Failed(
            f"the run is done, and not all of it was pushed: {error}. Run the same command again, or "
            f"`launch/push.py {directory} --hub_model_id {place.repository}`: only what is missing is pushed"
        ) from error


def push_folders(folders: Sequence[str], options: Any, say: Say = print) -> None:
    """What `launch/push.py` does: a pretraining run's series, a fine-tuning run's models, or one model's folder."""
    if len(folders) != 1:
        raise ValueError("name one folder before the options: the --output_dir of a run, or a model's")
    folder, place = Path(folders[0]).expanduser(), place_of(options)
    models = models_of(folder) or ([SavedModel(folder)] if (folder / CONFIG).is_file() else [])
    is_series = (folder / SERIES_NAME).is_file()
    if not is_series and not models:
        raise ValueError(
            f"{folder} holds no {SERIES_NAME}, no {BEST}/ and no {CONFIG}: name the --output_dir of a run, or the "
            "folder of a model"
        )
    require_online("launch/push.py")
    if is_series:
        say(pushed_text(push_series(folder, place, say), place))
    else:
        push_models(models, place, say)


def _has_failed(model: SavedModel, say: Say) -> bool:
    """Whether the run that made it failed: such a model is nobody's."""
    run = model.folder.parent
    status = read_results(run)["status"] if (run / RESULTS_NAME).is_file() else "done"
    if status != "done":
        say(f"warning: {model.folder} is not pushed: its run ended as {status}")
    return bool(status != "done")
