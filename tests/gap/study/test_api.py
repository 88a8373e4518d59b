"""`measure` from Python: the command's study, its figures, and what a notebook shows."""

import base64
import os
import re
import signal

import pytest
import torch
from tiny_gap import write_series, write_tasks

from gap import GapOptions, Study, measure
from gap.study.api import call_text
from runtime.processes.interruption import MARKER_NAME

SHORT = {
    "learning_rates": [1e-2],
    "num_train_epochs": 1,
    "grid_extensions": 0,
    "scratch_longer": "",
    "max_seq_length": 32,
    "doc_stride": 8,
    "draws": 200,
    "max_parallel": 1,
}


def seen():
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    handlers = [signal.getsignal(number) for number in signals]
    return dict(os.environ), handlers, torch.get_num_threads(), torch.get_rng_state().tolist()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    series, tasks = write_series(folder / "run", (100, 200)), write_tasks(folder / "tasks")
    return {"series": series, "tasks": [f"questions=qa:{tasks[0].place}"], "output_dir": folder / "out"}


@pytest.fixture(scope="module")
def study(place):
    before = seen()
    made = measure(**place, **SHORT)
    assert seen() == before
    return made


def test_a_study_has_its_scores_its_gap_and_its_report(study, place):
    assert len(study.scores) == 3 * 3
    assert [task.task for task in study.tasks] == ["questions"]
    gap = study.gap()
    assert gap == study.gap("questions") == study.task("questions").gap
    assert -1 <= gap.value <= 1
    assert study.answer.startswith("On questions ")
    assert all(0 < crossing.level < 1 for crossing in study.crossings())
    page = study.report.read_text(encoding="utf-8")
    assert "gap.measure(series=" in page
    with pytest.raises(ValueError, match="task 'other': use one of questions"):
        study.gap("other")
    texts = {"series": str(place["series"]), "tasks": place["tasks"][0], "output_dir": str(place["output_dir"])}
    again = measure(GapOptions(**{**SHORT, **texts, "learning_rates": "0.01", "num_train_epochs": "1"}))
    assert len(again.scores) == 9
    assert again.gap().value == pytest.approx(gap.value)


def test_a_notebook_shows_the_answer_and_the_curve(study):
    page = study._repr_html_()
    assert "On questions " in page
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert images
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    figure = study.figure()
    assert "pretraining" in figure.axes[0].get_xlabel()
    with pytest.raises(ValueError, match="chart 'loss': use one of gap, score"):
        study.figure(chart="loss")


def test_a_dry_run_has_no_analysis(place, tmp_path, capsys):
    mark = tmp_path / "planned" / MARKER_NAME
    mark.parent.mkdir()
    mark.write_text("{}")
    planned = measure(**{**place, "output_dir": tmp_path / "planned"}, dry_run=True, **SHORT)
    assert "9 cells" in capsys.readouterr().out
    assert not mark.exists()
    assert planned.analysis is None
    assert "no analysis" in planned._repr_html_()
    with pytest.raises(ValueError, match="has no analysis"):
        _ = planned.tasks


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"task": "qa:a"}, TypeError, "did you mean tasks"),
        ({"tasks": None}, ValueError, "--series needs --tasks"),
        ({"tasks": "qa:nowhere.json"}, ValueError, "nowhere.json"),
        ({"finetuning_seeds": 1}, ValueError, "3"),
    ],
)
def test_what_is_refused_raises(place, tmp_path, wrong, error, said):
    before = seen()
    with pytest.raises(error, match=said):
        measure(**{**place, "output_dir": tmp_path / "out", **SHORT, **wrong})
    assert seen() == before


def test_the_call_as_the_report_shows_it():
    assert call_text(GapOptions(series="a", tasks="qa:b")) == "gap.measure(series='a', tasks='qa:b')"
    assert Study.__doc__
