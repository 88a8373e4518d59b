"""Running cells one after another in a process: tasks are encoded once, and only scores are written."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetuning.examples.batches import batch_shape
from finetuning.examples.pair_template import row_limit
from finetuning.examples.recipe import FinetuningOptions, Recipe
from finetuning.loop.result import Result
from finetuning.loop.training import engine_options, finetune
from finetuning.model.checkpoint_files import attention_of, load_config, load_tokenizer
from finetuning.model.heads import Head, Headed, load_headed
from finetuning.model.masked_lm import load_masked_lm
from gap.cells.job_list import JobList, model_digest
from gap.cells.plan import CellSource, PlannedCell, Search, Setting
from gap.cells.provenance import device_text, now_text
from gap.cells.store import Cell, write_predictions
from gap.tasks.kinds.task_data import Record, TaskData
from gap.tasks.likelihood import pseudo_log_likelihoods
from gap.tasks.records import cell_metrics, example_records
from gap.tasks.rows import HELD_OUT, SCORED, cell_view, encode_task, label_subset, search_view
from gap.tasks.specification import parse_tasks, read_task
from gap.tasks.unigram import unigram_log_likelihoods
from pretraining.engines.build import build_engine
from runtime.model_places import is_elsewhere
from runtime.processes.ranks import Ranks


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search's try; `scored` is its score on the scored examples, which no choice may use."""

    held_out: float
    scored: float
    status: str
    seconds: float
    held_out_loss: float | None = None


@dataclass
class Workbench:
    """The cache between cells: tasks by name, their rows by tokenizer, the last checkpoint's weights."""

    jobs: JobList
    device: torch.device
    data: dict[str, TaskData] = field(default_factory=dict)
    recipes: dict[tuple[str, str], Recipe] = field(default_factory=dict)
    headed: tuple[tuple[CellSource, Head, int | None], Headed] | None = None

    def task(self, name: str) -> TaskData:
        """The examples of a task; ValueError if they are not those of the plan."""
        if name not in self.data:
            data = read_task(parse_tasks(self.jobs.tasks[name])[0], self.jobs.options.reading)
            if data.digest != self.jobs.task_digests[name]:
                raise ValueError(
                    f"task {name}: its files changed since the cells were planned: run launch/gap.py again"
                )
            self.data[name] = data
        return self.data[name]

    def load(self, source: CellSource, head: Head, seed: int) -> Headed:
        """A checkpoint with a newly initialised head; read from disk once for consecutive cells.

        Scratch is the checkpoint's configuration with random weights of its own for each `seed` of a training run.
        ValueError if the checkpoint is not the one of the plan.
        """
        weights_seed = initial_seed(source, seed) if source.starts_random else None
        if self.headed is None or self.headed[0] != (source, head, weights_seed):
            self.headed = None
            self._require_planned(source)
            attention = attention_of(
                config := load_config(source.path),
                bf16=self.jobs.options.bf16 == "true",
                device_type=self.device.type,
                length=self.jobs.options.rows.max_seq_length,
            )
            headed = load_headed(
                source.path,
                head,
                from_scratch=source.starts_random,
                seed=source.pretraining_seed if weights_seed is None else weights_seed,
                dropout=self.jobs.options.dropout,
                config=config,
                attention=attention,
            )
            self.headed = ((source, head, weights_seed), headed)
        return self.headed[1]

    def masked_lm(self, source: CellSource) -> Any:
        """The checkpoint's masked language model for evaluation, in the precision of the cells.

        Scratch has random weights of its own for every pretraining seed. ValueError as in `load`, and for a checkpoint
        without the head.
        """
        self.headed = None
        self._require_planned(source)
        config = load_config(source.path)
        bf16 = self.jobs.options.bf16 == "true"
        length = self.jobs.options.rows.max_seq_length
        attention = attention_of(config, bf16=bf16, device_type=self.device.type, length=length)
        seed = initial_seed(source, 0) if source.starts_random else None
        model = load_masked_lm(source.path, config, attention=attention, random_seed=seed)
        for parameter in model.parameters() if bf16 else ():
            parameter.data = parameter.data.to(torch.bfloat16)  # buffers keep their precision, as in training
        return model.to(self.device).eval()

    def _require_planned(self, source: CellSource) -> None:
        is_folder = Path(source.path).is_dir() or is_elsewhere(source.path)
        if is_folder and model_digest(source.path) != self.jobs.model_digests[source.path]:
            raise ValueError(
                f"checkpoint {source.path}: its files changed since the cells were planned: run launch/gap.py again"
            )

    def rows(self, setting: Setting) -> Recipe:
        """The task's rows under the checkpoint's tokenizer, made once per task and tokenizer."""
        tokenizer_of = (
            self.jobs.model_digests[setting.source.path] if setting.source.budget_tokens is None else "series"
        )
        key = (setting.task, tokenizer_of)
        if key not in self.recipes:
            config = load_config(setting.source.path)
            tokenizer = load_tokenizer(setting.source.path)
            self.recipes[key] = encode_task(self.task(setting.task), tokenizer, config, self.jobs.options.rows)
        return self.recipes[key]


def initial_seed(source: CellSource, seed: int) -> int:
    """The seed of scratch's random weights: one of its own for each pretraining seed and seed of a training run."""
    digest = hashlib.sha256(f"scratch {source.pretraining_seed} {seed}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def run_search(bench: Workbench, search: Search) -> SearchResult:
    """Train without the held-out part, score that part (and, for the record, the scored set)."""
    setting = search.setting
    data = bench.task(setting.task)
    ids = set(label_subset(data, setting.label_fraction))
    view = search_view(data, bench.rows(setting), ids, split=search.split)
    started = time.perf_counter()
    result = _train(bench, view, setting, search.learning_rate, search.epochs, search.seed)
    seconds = time.perf_counter() - started
    held_out = result.scores[f"{HELD_OUT}_{view.metric}"] / view.metric_maximum
    scored = result.scores[f"{SCORED}_{view.metric}"] / view.metric_maximum
    loss = float(result.scores.get(f"{HELD_OUT}_loss", math.nan))
    return SearchResult(
        _finite(held_out), _finite(scored), result.status, seconds, loss if math.isfinite(loss) else None
    )


def run_cell(
    bench: Workbench,
    cell: PlannedCell,
    chosen: tuple[float, float],
    directory: Path,
    *,
    contaminated: Collection[str] = (),
    details: Mapping[str, Any] | None = None,
) -> Cell:
    """Fine-tune with the chosen (learning rate, epochs), score, and write the per-example predictions.

    `details` go into the cell's line; `peeking_gain` among them becomes `peeked_score`.
    """
    setting, (rate, epochs) = cell.setting, chosen
    data = bench.task(setting.task)
    ids = set(label_subset(data, setting.label_fraction))
    seed = cell.finetuning_seed if cell.shuffled else None
    view = cell_view(data, bench.rows(setting), ids, shuffle_seed=seed)
    started = time.perf_counter()
    result = _train(bench, view, setting, rate, epochs, cell.finetuning_seed)
    seconds = time.perf_counter() - started
    records = example_records(data, result.predictions[SCORED], contaminated)
    metrics = cell_metrics(data, result.scores, f"{SCORED}_", records)
    more = dict(details or {})
    gain = more.pop("peeking_gain", None)
    if gain is not None:
        more["peeked_score"] = _finite(metrics.get(data.metric, 0.0)) + gain
    trained = {
        "learning_rate": rate,
        "epochs": epochs * setting.epochs_factor,
        "training_examples": len(ids),
        "updates": result.updates,
        "reason": result.reason,
    }
    return finished_cell(bench, cell, directory, records, metrics, result.status, seconds, {**trained, **more})


def run_zero_shot(
    bench: Workbench,
    cell: PlannedCell,
    directory: Path,
    *,
    contaminated: Collection[str] = (),
    details: Mapping[str, Any] | None = None,
) -> Cell:
    """Score the sentences of minimal pairs by a checkpoint as it is, or by the frequencies of their tokens."""
    data, source, options = bench.task(cell.setting.task), cell.setting.source, bench.jobs.options
    texts = [text for pair in data.scored.values() for text in (pair.good, pair.bad)]
    started = time.perf_counter()
    tokenizer = load_tokenizer(source.path)
    if cell.is_floor:
        sums = unigram_log_likelihoods(directory, str(bench.jobs.corpus), tokenizer, texts)
        likelihoods = {"": np.array(sums)}
    else:
        model = bench.masked_lm(source)
        longest = row_limit(options.rows.max_seq_length, model.config)
        rows = options.per_device_eval_batch_size
        found = pseudo_log_likelihoods(model, tokenizer, texts, longest=longest, batch_rows=rows)
        likelihoods = {"": found["within_word"], "plain_": found["plain"]}
    predictions = {
        name: {
            f"{kind}{which}": float(values[2 * number + place])
            for kind, values in likelihoods.items()
            for place, which in enumerate(("good", "bad"))
        }
        for number, name in enumerate(data.scored)
    }
    seconds = time.perf_counter() - started
    records = example_records(data, predictions, contaminated)
    finite = all(np.isfinite(values).all() for values in likelihoods.values())
    status, metrics = "done" if finite else "not_finite", cell_metrics(data, {}, "", records)
    more = {"zero_shot": True, **(details or {})}
    return finished_cell(bench, cell, directory, records, metrics, status, seconds, more)


def finished_cell(
    bench: Workbench,
    cell: PlannedCell,
    directory: Path,
    records: Sequence[Record],
    metrics: Mapping[str, float],
    status: str,
    seconds: float,
    details: Mapping[str, Any],
) -> Cell:
    """Write the per-example predictions; the cell's line."""
    setting, data, name = cell.setting, bench.task(cell.setting.task), bench.jobs.fingerprint(cell)
    path = Path("predictions") / data.spec.name / f"{name[:24]}.json"
    write_predictions(directory / path, records)
    return Cell(
        fingerprint=name,
        task=setting.task,
        kind=setting.source.kind,
        budget_tokens=setting.source.budget_tokens,
        pretraining_seed=setting.source.pretraining_seed,
        finetuning_seed=cell.finetuning_seed,
        metric=data.metric,
        score=_finite(metrics.get(data.metric, 0.0)),
        control=cell.control,
        label_fraction=setting.label_fraction,
        epochs_factor=setting.epochs_factor,
        metrics=metrics,
        status=status,
        seconds=seconds,
        predictions=str(path),
        details={
            "clusters": data.grouping,
            "device": device_text(bench.device),
            "precision": "bf16" if bench.jobs.options.bf16 == "true" else "fp32",
            "finished": now_text(),
            **details,
        },
    )


def _train(bench: Workbench, recipe: Recipe, setting: Setting, rate: float, epochs: float, seed: int) -> Result:
    options = finetuning_options(bench.jobs, setting, rate, epochs, seed)
    transformer: Any = bench.load(setting.source, recipe.head, seed).fresh(seed)
    torch.manual_seed(seed)
    model = recipe.build_model(transformer)
    if bench.jobs.options.freeze_embeddings:
        transformer.get_input_embeddings().weight.requires_grad_(False)
    shape = batch_shape(options, 1)
    # One process on one device, even if this process is one of several ranks.
    prepared = engine_options(options, shape, bf16=options.bf16 == "true")
    engine = build_engine(model, prepared, ranks=Ranks(), device=bench.device)
    return finetune(recipe, model, options, engine=engine)


def finetuning_options(
    jobs: JobList, setting: Setting, learning_rate: float, epochs: float, seed: int
) -> FinetuningOptions:
    """The recipe's options for one training run."""
    own = jobs.options
    return FinetuningOptions(
        num_train_epochs=epochs * setting.epochs_factor,
        global_batch_rows=own.global_batch_rows,
        per_device_train_batch_size=own.per_device_train_batch_size,
        per_device_eval_batch_size=own.per_device_eval_batch_size,
        learning_rate=learning_rate,
        warmup_ratio=own.warmup_ratio,
        weight_decay=own.weight_decay,
        dropout=own.dropout,
        seed=seed,
        bf16=own.bf16,
        save_model=False,
        report_to="none",
    )


def _finite(score: float) -> float:
    return score if math.isfinite(score) else 0.0
