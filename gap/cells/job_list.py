"""The list of jobs on disk (cells.json), shared by all workers, with every option that decides a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from finetuning.examples.recipe import FinetuningOptions
from gap.cells.plan import SEARCH_SEED, CellPlan, CellSource, PlannedCell, Search, Setting
from gap.cells.search.grid import Grid
from gap.cells.store import LINEAR_PROBE, Cell, fingerprint, read_scores
from gap.tasks.kinds.task_data import ReadingOptions, RowOptions
from runtime.files.schemas import Count, Items, Name, Number, PathName, Schema, read_object
from runtime.files.whole_files import write_json
from runtime.hub import hub_is_reachable, is_missing_path
from runtime.model_places import model_place
from runtime.options.declaration import identity_values, option_as_in

SCHEMA_VERSION = 1
REMEDY = "write it with launch/gap.py"
LIST_NAME, SCORES_NAME, SEARCHES_NAME = "cells.json", "scores.jsonl", "searches.jsonl"


@dataclass(frozen=True)
class CellOptions:
    """How every cell of a study is trained, except for the searched options."""

    reading: ReadingOptions = field(default_factory=ReadingOptions)
    rows: RowOptions = field(default_factory=RowOptions)
    global_batch_rows: int = 32
    per_device_train_batch_size: int | None = option_as_in(None, FinetuningOptions, "per_device_train_batch_size")
    per_device_eval_batch_size: int = option_as_in(128, FinetuningOptions, "per_device_eval_batch_size")
    warmup_ratio: float = 0.1
    weight_decay: float = 0.01
    dropout: float | None = None
    freeze_embeddings: bool = False  # token embeddings: names that do not occur in training keep their pretrained ones
    bf16: str = "auto"

    def deciding(self) -> dict[str, Any]:
        """The options that a score depends on; the micro-batch and the evaluation batch do not change it."""
        return identity_values(self)


@dataclass(frozen=True)
class JobList:
    """A plan, its options, and the digests of its tasks and models."""

    plan: CellPlan
    options: CellOptions
    tasks: Mapping[str, str]  # name -> specification
    task_digests: Mapping[str, str]
    model_digests: Mapping[str, str]  # path -> digest
    code: str  # `gap.cells.code_identity.code_version` of the sources that trained, or will train, the cells
    corpus: str | None = None  # digest of the shards whose token frequencies are the floor of zero-shot tasks
    probe_code: str | None = None  # `probe_version` of those of the linear probes; None without any

    def fingerprint(self, job: Search | PlannedCell) -> str:
        """sha256 of everything that decides the job's outcome: model, data, options, search and code."""
        setting = job.setting
        parts: dict[str, Any] = {
            "model": self.model_digests[setting.source.path],
            "from_scratch": setting.source.from_scratch,
            "data": self.task_digests[setting.task],
            "setting": [setting.task, setting.label_fraction, setting.epochs_factor],
            "place": [setting.source.kind, setting.source.budget_tokens, setting.source.pretraining_seed],
            "options": self.options.deciding(),
            "code": self.code,
        }
        if isinstance(job, PlannedCell) and job.zero_shot:
            own = {"max_seq_length": self.options.rows.max_seq_length, "bf16": self.options.bf16}
            floor = {"corpus": self.corpus} if job.is_floor else {}
            return fingerprint({**parts, "options": own, "control": job.control, **floor})
        # Later parts are left out where they have no effect: what was finished before them keeps its name.
        if setting.source.starts_random:
            parts["weights"] = "drawn for every training seed"
        if isinstance(job, Search):
            own = {} if job.seed == SEARCH_SEED else {"search_seed": job.seed}
            return fingerprint({**parts, **own, "try": [job.learning_rate, job.epochs]})
        if is_probe(job):  # nothing is searched for it
            return fingerprint({**parts, "control": job.control, "seed": job.finetuning_seed, "probe": self.probe_code})
        if job.search_seed != SEARCH_SEED:
            parts["search_seed"] = job.search_seed
        decider = job.search[0].source
        if decider != setting.source:
            place = [decider.kind, decider.budget_tokens, decider.pretraining_seed]
            parts["arguments_of"] = [self.model_digests[decider.path], *place]
        grid = self.plan.grid_of(decider).deciding()
        return fingerprint({**parts, "grid": grid, "seed": job.finetuning_seed, "control": job.control})

    def cell_names(self) -> frozenset[str]:
        """Fingerprints of all cells."""
        return frozenset(self.fingerprint(cell) for cell in self.plan.cells)


def is_probe(job: Search | PlannedCell) -> bool:
    """Whether the job is a linear probe on a frozen encoder; all others fine-tune it."""
    return isinstance(job, PlannedCell) and job.control == LINEAR_PROBE


def write_jobs(directory: Path, jobs: JobList) -> None:
    """Write cells.json atomically."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / LIST_NAME, {"schema_version": SCHEMA_VERSION, **asdict(jobs)})


class _SourceFile(Schema):
    path: PathName
    kind: Name
    budget_tokens: Count | None
    pretraining_seed: Count = 0
    from_scratch: bool = False
    control: Name | None = None
    task: Name | None = None


class _SettingFile(Schema):
    source: _SourceFile
    task: Name
    label_fraction: Number = 1.0
    epochs_factor: Number = 1.0


class _SearchFile(Schema):
    setting: _SettingFile
    learning_rate: Number
    epochs: Number
    seed: Count = SEARCH_SEED


class _CellFile(Schema):
    setting: _SettingFile
    finetuning_seed: Count
    control: Name | None
    search_seed: Count = SEARCH_SEED
    arguments_of: _SourceFile | None = None
    zero_shot: bool = False


class _GridFile(Schema):
    learning_rates: Items[Number]
    epochs: Items[Number]
    extensions: Count = 0


class _PlanFile(Schema):
    searches: Items[_SearchFile]
    cells: Items[_CellFile]
    grid: _GridFile
    reference_grid: _GridFile | None = None


class _ReadingFile(Schema):
    data_dir: PathName | None = None
    max_train_samples: Count | None = None
    max_eval_samples: Count | None = None
    on_overlap: Literal["stop", "drop"] = "stop"


class _RowsFile(Schema):
    max_seq_length: Count = 0
    doc_stride: Count = 0
    pooling: Name = "cls"
    max_answer_length: Count = 0


class _OptionsFile(Schema):
    reading: _ReadingFile
    rows: _RowsFile
    global_batch_rows: Count = 0
    per_device_train_batch_size: Count | None = None
    per_device_eval_batch_size: Count = 0
    warmup_ratio: Number = 0.0
    weight_decay: Number = 0.0
    dropout: Number | None = None
    freeze_embeddings: bool = False
    bf16: Name = "auto"


class _ListFile(Schema):
    """cells.json, as `write_jobs` writes it; omitted values take the defaults of the classes themselves."""

    schema_version: Literal[1]
    plan: _PlanFile
    options: _OptionsFile
    tasks: dict[Name, Name]
    task_digests: dict[Name, Name]
    model_digests: dict[Name, Name]
    code: Name
    corpus: Name | None = None
    probe_code: Name | None = None


def read_jobs(directory: Path) -> JobList:
    """Read cells.json; ValueError if `write_jobs` did not write it."""
    path = directory / LIST_NAME
    try:
        content = read_object(path, _ListFile, REMEDY)
    except OSError as error:
        raise ValueError(f"{path} does not hold a list of cells ({error}): {REMEDY}") from error
    try:
        return _jobs_of(content)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a list of cells ({error!r}): {REMEDY}") from error


def _jobs_of(content: Mapping[str, Any]) -> JobList:
    plan, options = content["plan"], content["options"]
    searches = (Search(**{**job, "setting": _setting(job["setting"])}) for job in plan["searches"])
    cells = (
        PlannedCell(**{**job, "setting": _setting(job["setting"]), "arguments_of": _source(job.get("arguments_of"))})
        for job in plan["cells"]
    )
    grid, other = _grid(plan["grid"]), plan.get("reference_grid")
    reading, rows = ReadingOptions(**options["reading"]), RowOptions(**options["rows"])
    jobs = JobList(
        CellPlan(tuple(searches), tuple(cells), grid, None if other is None else _grid(other)),
        CellOptions(**{**options, "reading": reading, "rows": rows}),
        content["tasks"],
        content["task_digests"],
        content["model_digests"],
        content["code"],
        content.get("corpus"),
        content.get("probe_code"),
    )
    settings = {job.setting for job in jobs.plan.jobs()}
    unknown = {setting.task for setting in settings} - set(jobs.task_digests)
    paths = {cell.search[0].source.path for cell in jobs.plan.cells}
    unknown |= (paths | {setting.source.path for setting in settings}) - set(jobs.model_digests)
    if unknown:
        raise ValueError(f"no digest of {', '.join(sorted(unknown)[:5])}")
    return jobs


def cells_of_other_code(jobs: JobList, directory: Path) -> tuple[str, list[Cell]]:
    """The code of the list in `directory`, and its finished cells that differ from those of `jobs` only in the code.

    Empty without a readable list: it is about to be replaced.
    """
    try:
        earlier = read_jobs(directory)
    except ValueError:
        return "", []
    before, probes = earlier.code, earlier.probe_code or jobs.probe_code
    scores = directory / SCORES_NAME
    if before == jobs.code or not scores.is_file():
        return before, []
    names = replace(jobs, code=before, probe_code=probes).cell_names()
    return before, [cell for cell in read_scores(scores) if cell.fingerprint in names]


def model_digest(path: str) -> str:
    """sha256 over a checkpoint's configuration, weights and tokenizer; a hub name alone with its commit."""
    from pretraining.model.source.config import hub_commit  # loads torch, which the options of a cell do not need
    from pretraining.model.source.weights import checkpoint_digest

    directory = Path(model_place(path))
    if not directory.is_dir():
        if is_missing_path(path):
            raise ValueError(f"{path} is not a directory: name one, or a model on the hub (--reference, --series)")
        try:
            commit = hub_commit(path, local_files_only=not hub_is_reachable())
        except OSError as error:
            raise ValueError(
                f"{path} is not a directory here, and the model hub did not deliver it ({str(error).splitlines()[0]}): "
                "name a directory (--reference, --series)"
            ) from error
        return f"{path}@{commit}"
    return checkpoint_digest(directory, "json")


def _setting(values: Mapping[str, Any]) -> Setting:
    return Setting(**{**values, "source": CellSource(**values["source"])})


def _source(values: Mapping[str, Any] | None) -> CellSource | None:
    return None if values is None else CellSource(**values)


def _grid(values: Mapping[str, Any]) -> Grid:
    """ValueError for a grid without learning rates: a list has those of its models."""
    grid = Grid(tuple(values["learning_rates"]), tuple(values["epochs"]), int(values.get("extensions", 0)))
    if not grid.learning_rates:
        raise ValueError("a grid without learning rates")
    return grid
