"""The time for a list of cells is estimated per model, and from measured cells where available."""

import json

import pytest
import torch
from tiny_gap import WORDS, tiny_jobs, wider, write_series, write_tasks
from transformers import BertConfig, DebertaV2Config

from gap.cells.estimate import Speed, time_rows, work_of
from gap.cells.job_list import SCORES_NAME
from gap.cells.plan import Controls, reference_sources
from gap.cells.worker import work
from gap.study import experiment
from gap.study import outlook as outlooks
from gap.study.outlook import outlook
from gap.tasks.specification import read_task


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return write_series(folder / "run", (100,)), write_tasks(folder / "tasks")


def reading(jobs, tasks):
    return {spec.name: read_task(spec, jobs.options.reading) for spec in tasks}


def test_the_reference_is_timed_as_the_model_that_it_is(world, tmp_path, monkeypatch):
    series, tasks = world
    widths = []

    def by_width(config, tokens, options, device):
        widths.append(config.hidden_size)
        return Speed(config.hidden_size, 0.0)

    monkeypatch.setattr(outlooks, "time_rows", by_width)
    alone = tiny_jobs(series, tasks[1:2])
    seconds = outlook(alone, reading(alone, tasks[1:2]), tmp_path, devices=1).device_seconds
    reference = tuple(reference_sources(str(wider(series, tmp_path / "reference"))))
    both = tiny_jobs(series, tasks[1:2], reference)
    more = outlook(both, reading(both, tasks[1:2]), tmp_path, devices=1).device_seconds
    own = widths[0]
    assert widths == [own, own, 2 * own]  # once alone, then the series and the reference, each once
    assert seconds == 6 * 24 * own  # scratch and one budget, three seeds, 24 rows
    assert more == seconds + 6 * 24 * 2 * own


def test_longer_training_and_fewer_labels_count(world, tmp_path, monkeypatch):
    series, tasks = world
    monkeypatch.setattr(outlooks, "time_rows", lambda *of: Speed(1.0, 10.0))
    jobs = tiny_jobs(series, tasks[1:2], controls=Controls((2.0,), (0.5,)))
    kinds = {(cell.control, cell.setting.epochs_factor, cell.setting.label_fraction) for cell in jobs.plan.cells}
    assert kinds >= {("scratch_longer", 2.0, 1.0), ("fewer_labels", 1.0, 0.5)}
    seconds = outlook(jobs, reading(jobs, tasks[1:2]), tmp_path, devices=1).device_seconds
    trained = sum(24 * cell.setting.epochs_factor * cell.setting.label_fraction for cell in jobs.plan.cells)
    assert seconds == trained + len(jobs.plan.cells) * 10 * 10.0


def test_what_is_left_is_told_from_the_cells_that_are_done(world, tmp_path):
    series, tasks = world
    few = tiny_jobs(series, tasks[1:2])
    experiment.write_list(few, reading(few, tasks[1:2]), tmp_path, None, print)
    work(tmp_path, say=lambda *words: None)
    path = tmp_path / SCORES_NAME
    rows = [{**json.loads(line), "seconds": 100.0} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = tiny_jobs(series, tasks[1:2], finetuning_seeds=5)
    found = outlook(more, reading(more, tasks[1:2]), tmp_path, devices=2)
    assert (found.cells, found.finished, found.device_seconds) == (4, 6, 400.0)


def test_questions_count_by_their_windows(world):
    series, tasks = world
    jobs = tiny_jobs(series, tasks[:1])
    found = work_of(read_task(tasks[0], jobs.options.reading), jobs.options)
    assert found.train_rows >= 24
    assert found.scored_rows >= 10
    assert found.row_tokens <= jobs.options.rows.max_seq_length


def test_a_row_of_a_larger_model_takes_longer(world):
    jobs = tiny_jobs(world[0], world[1][1:2])
    torch.set_num_threads(1)
    small, large = (
        time_rows(
            BertConfig(
                vocab_size=len(WORDS) + 5, hidden_size=width, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=4 * width,
            ),
            32, jobs.options, torch.device("cpu"),
        )
        for width in (16, 512)
    )  # fmt: skip
    assert large.train > 2 * small.train
    assert large.evaluate > 2 * small.evaluate
    assert large.train > large.evaluate
    other = DebertaV2Config(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    assert time_rows(other, 8, jobs.options, torch.device("cpu")).train > 0  # a family without fused attention
