"""The code in a cell's identity: what decides its score counts; the place of a source and its texts do not."""

import ast
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_gap import tiny_jobs, write_series, write_tasks

from finetuning.model.heads import SPANS, Head
from gap.cells import worker
from gap.cells.code_identity import FREE, PROJECT, ROOTS, code_version, deciding_modules, digest_of
from gap.cells.job_list import SCORES_NAME, read_jobs, write_jobs
from gap.cells.running import Workbench
from gap.cells.store import read_scores
from gap.cells.worker import remaining, work
from gap.study.experiment import other_code_warning, write_list

ROOT = Path(__file__).resolve().parents[3]
OWN = digest_of(ROOT)


@pytest.fixture
def tree(tmp_path):
    """A copy of the sources."""
    for package in PROJECT:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    assert digest_of(tmp_path) == OWN
    return tmp_path


def edit(path, pattern, new):
    before = path.read_text()
    after = re.sub(pattern, new, before, count=1, flags=re.DOTALL)
    assert after != before, f"{path.name} has no {pattern}"
    path.write_text(after)


def test_layout_and_comments_count_nothing(tree):
    for file in tree.rglob("*.py"):
        file.write_text("# new\n" + ast.unparse(ast.parse(file.read_text())) + "\n")
    assert digest_of(tree) == OWN


@pytest.mark.parametrize(
    ("file", "pattern", "new"),
    [
        ("finetuning/loop/schedule.py", '^"""', '"""New. '),
        ("finetuning/loop/schedule.py", r'(def make_schedule[^"]*""")', r"\1New. "),
        ("finetuning/loop/schedule.py", "to evaluate only", "to score only"),
        ("finetuning/loop/schedule.py", "options: FinetuningOptions", "options: object"),
        ("finetuning/loop/schedule.py", "import math\n", "import math  # for ceil\n"),
        ("finetuning/examples/recipe.py", "training examples; default", "What to learn from; default"),
        ("finetuning/loop/run_log.py", "$", "\nNEW = 1\n"),
        ("finetuning/loop/training.py", r"(\n    run = )", r"\n    print('new')\1"),
        ("finetuning/run/figures.py", "$", "\nNEW = 1\n"),
        ("finetuning/recipes/texts/glue_table.py", "$", "\nNEW = 1\n"),
        ("finetuning/sweep/runner.py", "$", "\nNEW = 1\n"),
        ("gap/report/charts.py", "$", "\nNEW = 1\n"),
        (
            "gap/tasks/kinds/questions.py",
            r"(def row_texts[^\n]*\n)",
            r"\1        print(1 + 1)\n        example = example\n",
        ),
        ("gap/report/page.py", "$", "\nNEW = 1\n"),
        ("gap/__init__.py", "$", '\n"""More."""\n'),
        ("runtime/trackers.py", "$", "\nNEW = 1\n"),
        ("pretraining/plan/plan.py", "$", "\nNEW = 1\n"),
    ],
)
def test_an_edit_that_cannot_change_a_score_runs_nothing_again(tree, file, pattern, new):
    edit(tree / file, pattern, new)
    assert digest_of(tree) == OWN


@pytest.mark.parametrize(
    ("file", "pattern", "new"),
    [
        ("finetuning/loop/schedule.py", r"self\.total_updates - update\b", "self.total_updates - update - 1"),
        ("finetuning/loop/schedule.py", r"import math\n", "from numpy import core as math\n"),
        ("finetuning/recipes/texts/metrics.py", "pos_label=1", "pos_label=0"),
        ("finetuning/recipes/questions/metrics.py", r"\.lower\(\)", ""),
        ("finetuning/recipes/choices/recipe.py", "-100 if", "-1 if"),
        ("finetuning/recipes/questions/recipe.py", r"(def collate.*?\n        batch)", r"\1_of = batch"),
        ("finetuning/recipes/texts/recipe.py", r"$", "\nNEW = 1\n"),
        ("finetuning/examples/recipe.py", "384,", "256,"),
        ("finetuning/model/heads.py", "HEAD_STD = 0.02", "HEAD_STD = 0.2"),
        ("finetuning/loop/updates.py", r"$", "\nNEW = 1\n"),
        ("pretraining/engines/updating/optimizers.py", r"$", "\nNEW = 1\n"),
        ("pretraining/engines/torch_engine.py", r"$", "\nNEW = 1\n"),
        ("gap/cells/plan.py", r"SEARCH_SEED = ", "SEARCH_SEED = 1 + "),
        ("gap/cells/search/choice.py", r"-number\)", "number)"),
        ("gap/tasks/records.py", r"$", "\nNEW = 1\n"),
        ("gap/__init__.py", "$", "\nNEW = 1\n"),
    ],
)
def test_an_edit_of_what_decides_a_score_is_another_identity(tree, file, pattern, new):
    edit(tree / file, pattern, new)
    assert digest_of(tree) != OWN


def test_modules_may_move_and_be_renamed(tree):
    """All but the roots, each into a folder of its own, three names further down, with every import rewritten."""
    moved = {}
    for module in set(deciding_modules(tree)) - set(ROOTS):
        if tree.joinpath(*module.split(".")).is_dir():
            continue
        package, _, name = module.rpartition(".")
        new = f"{package}.{name}_parts.inner.{name}_moved"
        target = tree.joinpath(*new.split(".")).with_suffix(".py")
        target.parent.mkdir(parents=True)
        for folder in (target.parent, target.parent.parent):
            (folder / "__init__.py").write_text('"""A folder of its own."""\n')
        shutil.move(tree.joinpath(*module.split(".")).with_suffix(".py"), target)
        moved[module] = new
    names = re.compile(rf"\b({'|'.join(map(re.escape, moved))})\b(?=[ .\n])")
    for file in tree.rglob("*.py"):
        file.write_text(names.sub(lambda match: moved[match[1]], file.read_text()))
    assert set(moved.values()) <= set(deciding_modules(tree))
    assert digest_of(tree) == OWN
    edit(tree / "finetuning" / "loop" / "schedule_parts" / "inner" / "schedule_moved.py", "$", "\nNEW = 1\n")
    assert digest_of(tree) != OWN


def test_the_roots_may_move_with_their_declaration(tree):
    shutil.move(tree / "gap" / "cells" / "running.py", tree / "gap" / "trained.py")
    for file in tree.rglob("*.py"):
        file.write_text(re.sub(r"\bgap\.cells\.running\b", "gap.trained", file.read_text()))
    assert digest_of(tree, ["gap.trained", "gap.cells.search.choice"]) == OWN
    with pytest.raises(AssertionError, match=r"no such modules: gap\.cells\.running"):
        digest_of(tree)


def test_a_function_taken_from_another_module_is_another_function(tree):
    for name in ("first", "second"):
        (tree / "finetuning" / f"{name}.py").write_text(f"def rate(update):\n    return {len(name)} * update\n")
    schedule = tree / "finetuning" / "loop" / "schedule.py"
    edit(
        schedule,
        r"import math\n",
        "import math\nfrom finetuning.first import rate\nfrom finetuning.second import rate as r\n",
    )
    before = digest_of(tree)
    edit(schedule, r"from finetuning.first import rate\nfrom finetuning.second import rate as r\n",
         "from finetuning.second import rate\nfrom finetuning.first import rate as r\n")  # fmt: skip
    assert digest_of(tree) != before


def test_every_module_that_is_declared_free_is_one_that_a_deciding_module_imports():
    imported = {target for module in deciding_modules(ROOT).values() for target, _, _ in module.own}
    assert FREE - imported == set()


def test_all_packages_below_the_launchers_are_followed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name.removesuffix("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert set(PROJECT) == packages - {"launch", "ds_configs"}  # command lines, JSON files


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study of two cells, and its list."""
    folder = tmp_path_factory.mktemp("study")
    series, tasks = write_series(folder / "run", (100,)), write_tasks(folder / "tasks")
    jobs = tiny_jobs(series, tasks[1:2], finetuning_seeds=1, intervals=False)
    write_jobs(folder / "out", jobs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    work(folder / "out", say=lambda *words: None)
    torch.set_num_threads(threads)
    return folder, jobs


def test_finished_cells_of_other_code_are_named_with_what_to_do(study):
    folder, jobs = study
    out = folder / "out"
    assert other_code_warning(jobs, out) is None
    newer = replace(jobs, code="f" * 64)
    warning = other_code_warning(newer, out)
    for words in (
        "2 finished cells of texts",
        "trained by other code",
        jobs.code[:16],
        "launch/report.py",
        "--output_dir",
    ):
        assert words in warning
    assert len(remaining(newer, out)) == 2
    said = []
    write_list(newer, {}, out, None, said.append)
    assert said == [f"warning: {warning}"]
    assert other_code_warning(newer, out) is None  # said once: the list is the newer one now
    assert len(read_scores(out / SCORES_NAME)) == 2
    with pytest.raises(ValueError, match=r"planned with other code \(sources ffff"):
        work(out)
    write_jobs(out, jobs)
    assert work(out, say=lambda *words: None) == 0.0


def test_a_list_that_cannot_be_read_leaves_no_cells_behind(study, tmp_path):
    (tmp_path / "cells.json").write_text("{")
    assert other_code_warning(study[1], tmp_path) is None


def test_a_checkpoint_that_changed_after_the_planning_is_noticed(study):
    jobs = study[1]
    source = jobs.plan.cells[-1].setting.source
    weights = Path(source.path) / "model.safetensors"
    before = weights.read_bytes()
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    try:
        with pytest.raises(ValueError, match="changed since the cells were planned"):
            Workbench(jobs, torch.device("cpu")).load(source, Head(SPANS, 2), 0)
    finally:
        weights.write_bytes(before)


def test_the_code_of_a_process_is_that_of_its_start(study, monkeypatch):
    """Sources that are edited while a worker waits for its list are not those that it runs."""
    folder = study[0]
    assert code_version() == OWN == read_jobs(folder / "out").code
    monkeypatch.setattr("gap.cells.code_identity.digest_of", lambda root: "edited")
    assert worker.main([str(folder / "out")]) == 0
