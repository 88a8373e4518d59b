"""Estimate of the time for a list of cells, from finished cells of the same kind, else from a few timed updates."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import AutoModel, PretrainedConfig

from finetuning.model.checkpoint_files import attention_of
from gap.cells.job_list import CellOptions, is_probe
from gap.cells.plan import UNIGRAM, CellSource, PlannedCell, Search, Setting
from gap.cells.store import LINEAR_PROBE, Cell
from gap.tasks.kinds.task_data import TaskData
from gap.tasks.rows import HELD_OUT_SHARE
from pretraining.engines.updating.master_weights import MasterWeights

TIMED_SECONDS = 2.0  # approximate time for a model's timed updates; a large one on a CPU is timed with fewer rows
TIMED_UPDATES = 2
SAMPLED_TEXTS = 200
TOKENS_A_WORD = 1.4  # a guess, for texts that no tokenizer has seen yet
WORD = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")


@dataclass(frozen=True)
class Work:
    """The work of a task's cell: rows and their length in tokens."""

    train_rows: float
    scored_rows: float
    row_tokens: int


@dataclass(frozen=True)
class Speed:
    """Seconds per row, for forward and backward, and for forward alone."""

    train: float
    evaluate: float


def work_of(data: TaskData, options: CellOptions) -> Work:
    """Rows and their length, guessed from a sample of the words."""
    longest = options.rows.max_seq_length
    sample = list((data.scored if data.zero_shot else data.train).values())[:SAMPLED_TEXTS]
    texts = [text for example in sample for text in data.row_texts(example)]
    lengths = [TOKENS_A_WORD * len(WORD.findall(text)) + 4 for text in texts]
    rows = sum(max(1.0, length / longest) if data.windowed else 1.0 for length in lengths) / len(sample)
    mean = sum(min(longest, length) for length in lengths) / len(lengths)
    return Work(rows * len(data.train), rows * len(data.scored), max(8, round(mean)))


def time_rows(config: PretrainedConfig, tokens: int, options: CellOptions, device: torch.device) -> Speed:
    """Time a few updates of random rows with random weights on this device."""
    bf16 = options.bf16 == "true"
    attention = attention_of(config, bf16=bf16, device_type=device.type, length=options.rows.max_seq_length)
    model = AutoModel.from_config(config, attn_implementation=attention).to(device)
    masters = MasterWeights(model) if bf16 else None
    weights = model.parameters() if masters is None else masters.parameters.values()
    optimizer = torch.optim.AdamW(weights, lr=1e-6)

    def seconds(rows: int, *, train: bool) -> float:
        ids = torch.randint(5, int(config.vocab_size), (rows, tokens), device=device)
        begin = _now(device)
        with torch.set_grad_enabled(train):
            out = model(input_ids=ids).last_hidden_state.float().pow(2).mean()
        if train:
            out.backward()
            optimizer.step()
            optimizer.zero_grad()
            if masters is not None:
                masters.publish()
        return _now(device) - begin

    seconds(1, train=True)  # the first update allocates and compiles
    one_row = seconds(1, train=True)
    wanted = options.per_device_train_batch_size or options.global_batch_rows
    rows = max(1, min(wanted, int(TIMED_SECONDS / TIMED_UPDATES / one_row)))
    train = sum(seconds(rows, train=True) for _ in range(TIMED_UPDATES)) / TIMED_UPDATES
    return Speed(train / rows, seconds(rows, train=False) / rows)


def model_of(source: CellSource) -> str:
    """The model by which a source is timed: the checkpoints of a series have one shape, a reference another."""
    return source.path if source.budget_tokens is None else ""


def estimated_seconds(
    left: Sequence[Search | PlannedCell],
    finished: Sequence[Cell],
    work: Mapping[str, Work],
    speed: Mapping[tuple[str, str], Speed],
    epochs_of: Mapping[tuple[Setting, int], float],
) -> float:
    """Seconds on one device for the remaining jobs.

    `speed` is by task and `model_of`, `epochs_of` a cell by the search that decides them: chosen, or expected.
    """
    total = 0.0
    for job in left:
        setting = job.setting
        if isinstance(job, PlannedCell) and job.is_floor:
            continue
        share = setting.label_fraction * setting.epochs_factor
        measured = [
            cell.seconds
            for cell in finished
            if cell.task == setting.task and _shape(cell) == _of(job) and cell.control != UNIGRAM
        ]
        if measured and isinstance(job, PlannedCell):
            total += sum(measured) / len(measured)
            continue
        own, rate = work[setting.task], speed[setting.task, model_of(setting.source)]
        if is_probe(job):  # the hidden states; the linear model on them takes little
            total += (own.train_rows + own.scored_rows) * rate.evaluate
            continue
        epochs = job.epochs if isinstance(job, Search) else 0.0 if job.zero_shot else epochs_of[job.search]
        kept = 1 - HELD_OUT_SHARE if isinstance(job, Search) else 1.0
        total += own.train_rows * share * kept * epochs * rate.train + own.scored_rows * rate.evaluate
    return total


def _shape(cell: Cell) -> tuple[bool, float, float, bool]:
    is_reference = cell.kind.startswith("reference")
    return is_reference, cell.label_fraction, cell.epochs_factor, cell.control == LINEAR_PROBE


def _of(job: Search | PlannedCell) -> tuple[bool, float, float, bool]:
    setting = job.setting
    is_reference = setting.source.kind.startswith("reference")
    return is_reference, setting.label_fraction, setting.epochs_factor, is_probe(job)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
