"""A kind of task is one class: once it is in the list, everything from --tasks to a cell's score supports it."""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_gap import THINGS, tiny_jobs, write_series

from finetuning.recipes.texts.labelled_text import LabelledText
from finetuning.recipes.texts.recipe import TextRecipe
from finetuning.recipes.texts.rows import TextSettings
from gap.cells.estimate import work_of
from gap.cells.job_list import SCORES_NAME, write_jobs
from gap.cells.store import read_predictions, read_scores
from gap.cells.worker import work
from gap.tasks.contamination import passages
from gap.tasks.kinds.reading import read_place, training_and_scored
from gap.tasks.kinds.task_data import TaskData, TaskSpec
from gap.tasks.specification import KINDS, parse_tasks, read_task, small_world_tasks

GAP = Path(__file__).resolve().parents[4] / "gap"


@dataclass(frozen=True)
class LineData(TaskData):
    """Lines of `yes` or `no` and a text."""

    in_small_world = False

    @classmethod
    def read(cls, spec, options):
        def read_lines(path):
            rows = [line.split(" ", 1) for line in path.read_text().splitlines()]
            return [LabelledText(f"{path.stem}-{i}", text, None, label) for i, (label, text) in enumerate(rows)]

        fields = training_and_scored(
            spec,
            read_place(spec, read_lines, dict),
            options,
            key=lambda example: example.example_id,
            cluster=lambda example: example.text,
            labelled=lambda examples, name: True,
        )
        return cls(spec, "accuracy", **fields)

    def encode(self, splits, tokenizer, longest, options):
        settings = TextSettings(max_seq_length=longest)
        return TextRecipe("lines", labels=("no", "yes"), splits=splits, tokenizer=tokenizer, settings=settings)

    def record(self, example, prediction):
        return {"score": float(prediction["label"] == example.label), "guess": prediction["label"]}

    def passage(self, example):
        return example.text.upper()

    def row_texts(self, example):
        return [example.text, example.text]


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """Two files of a kind that the tests alone know."""
    monkeypatch.setattr("gap.tasks.specification.KINDS", {**KINDS, "lines": LineData})
    for split in ("train", "test"):
        lines = [f"{('no', 'yes')[i % 2]} {THINGS[i % 12]} {THINGS[i % 7]} {split} {i}" for i in range(16)]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines))
    return parse_tasks(f"mine=lines:{tmp_path / 'train.txt'}+{tmp_path / 'test.txt'}@12")[0]


def test_a_class_in_the_list_is_all_that_a_kind_needs(spec, tmp_path):
    data = read_task(spec)
    assert (len(data.train), len(data.scored)) == (12, 16)
    jobs = tiny_jobs(write_series(tmp_path / "run", (100,)), (spec,))
    assert work_of(data, jobs.options).train_rows == 24.0
    assert passages(data)["test-0"] == "BALAN BALAN TEST 0"
    write_jobs(tmp_path / "study", jobs)
    work(tmp_path / "study", say=lambda words: None)
    cells = read_scores(tmp_path / "study" / SCORES_NAME)
    assert len(cells) == len(jobs.plan.cells)
    for cell in cells:
        records = read_predictions(tmp_path / "study" / str(cell.predictions))
        assert {"id", "score", "guess", "cluster"} == set(records["test-3"])
        assert cell.score == cell.metrics["accuracy"] == sum(one["score"] for one in records.values()) / 16


def test_the_small_world_has_the_kinds_that_say_so(spec, tmp_path):
    tasks = [(task.name, task.kind, task.max_train_samples) for task in small_world_tasks(tmp_path)]
    assert tasks == [
        ("qa", "qa", None), ("multiple_choice", "multiple_choice", 400), ("classification", "classification", None),
    ]  # fmt: skip


def test_a_kind_without_one_of_its_answers_cannot_be_read():
    class Silent(LineData):
        passage = TaskData.passage

    with pytest.raises(TypeError, match="passage"):
        Silent(None, "accuracy", {}, {}, {}, {})


def test_nothing_but_the_list_names_a_kind():
    """No module of gap compares or tabulates names of kinds; `tokens` is what budgets are counted in, too."""
    kinds, named = KINDS.keys() - {"tokens"}, {}
    for path in GAP.rglob("*.py"):
        strings = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        if strings & kinds and path.parent.name != "kinds":
            named[str(path.relative_to(GAP))] = sorted(strings & kinds)
    assert named == {"tasks/specification.py": sorted(kinds)}


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nothing/", "nothing/ does not exist: name a folder or files"),
        ("nothing.json", "nothing.json does not exist"),
        ("there/nothing", "there/nothing does not exist"),
        ("there", "there holds no file named after a split; train and test .or dev. are needed, such as train.json"),
        ("half", "half holds of the splits only test; train and test"),
    ],
)
def test_a_place_that_is_not_there_is_never_asked_of_the_hub(tmp_path, monkeypatch, place, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "test.json").write_text("[]")

    def load():
        raise AssertionError("the hub was asked")

    with pytest.raises(ValueError, match=message):
        read_place(TaskSpec("mine", "classification", place), lambda path: [], load)
