"""The Python API: its keywords are the options, it is typed, and importing it loads nothing heavy."""

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from finetuning.recipes.options import keywords as of_finetuning
from finetuning.recipes.options.prediction import PredictionOptions
from finetuning.run.option_checks import RECIPES, options_class
from gap import GapKeywords, GapOptions
from pretraining import PretrainingKeywords, PretrainingOptions
from runtime.options.keywords import keyword_type
from shards import BuildKeywords, BuildOptions

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("shards", "pretraining", "finetuning", "gap")
HEAVY = ("torch", "transformers", "deepspeed", "datasets", "webdataset", "scipy", "plotly", "matplotlib", "sklearn")
OF_RECIPES = {
    "classification": of_finetuning.ClassificationKeywords,
    "glue": of_finetuning.GlueKeywords,
    "multiple_choice": of_finetuning.MultipleChoiceKeywords,
    "qa": of_finetuning.QAKeywords,
    "token_classification": of_finetuning.TokenKeywords,
}
PAIRS = [
    (BuildKeywords, BuildOptions),
    (PretrainingKeywords, PretrainingOptions),
    (GapKeywords, GapOptions),
    (of_finetuning.PredictionKeywords, PredictionOptions),
    *((keywords, options_class(recipe)) for recipe, keywords in OF_RECIPES.items()),
]
# In one process, each package after the other; what is heavy is named with the statement that loaded it.
LIGHT = {
    "shards": ("build", "stream", "BuildOptions"),
    "pretraining": ("pretrain", "PretrainingOptions"),
    "finetuning": ("finetune", "predict", "load"),
    "gap": ("measure", "Study", "GapOptions"),
}
LOADS = f"""
import sys
for package, names in {LIGHT!r}.items():
    for statement in [f"import {{package}}", *(f"from {{package}} import {{name}}" for name in names)]:
        exec(statement)
        print(statement, [name for name in {HEAVY!r} if name in sys.modules])
"""
TYPED = """
from pathlib import Path
from finetuning import finetune, predict
from gap import measure
from pretraining import PretrainingOptions, pretrain
from shards import build, stream

build(input=["a.txt"], output_dir=Path("shards"), vocab_size=128)
pretrain(shards=Path("shards"), model="bert-tiny", budget_tokens=1e6, series=[1e5, 1e6], bf16=False).losses
pretrain(PretrainingOptions(budget_tokens=1e6))
finetune("qa", train_file="a.json", doc_stride=64).scores
measure(series=["a", "b"], tasks=["qa:a.json"]).gap().value
stream("shards", batch_rows=8).position
predict(model_name_or_path="best", test_file="new.csv").predictions
build(input="a.txt")  # error
build(input="a.txt", output_dir="shards", vocab_size="many")  # error
pretrain(budget_token=1e6)  # error
pretrain(decay="quick")  # error
finetune("classification", doc_stride=64)  # error
finetune("summaries")  # error
measure(tasks=3.5j)  # error
stream("shards", batch_rows="8")  # error
pretrain().loss  # error
"""


@pytest.mark.parametrize(("keywords", "options"), PAIRS, ids=lambda record: record.__name__)
def test_keywords_are_the_options(keywords, options):
    hints = get_type_hints(options)
    wanted = {item.name: keyword_type(item, hints[item.name]) for item in fields(options) if item.init}
    given = get_type_hints(keywords)
    wrong = {name: kind for name, kind in wanted.items() if given.get(name) != kind}
    assert not wrong, f"write these lines into {keywords.__name__}: {wrong}"
    assert list(given.keys() - wanted.keys()) == [], f"remove these from {keywords.__name__}"


def test_every_recipe_has_its_keywords():
    assert list(OF_RECIPES) == sorted(RECIPES)


def test_importing_a_package_or_a_function_loads_nothing_heavy():
    printed = subprocess.run([sys.executable, "-c", LOADS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = printed.splitlines()
    assert len(lines) == 15
    assert [line for line in lines if not line.endswith("[]")] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_its_public_names_and_knows_no_others(package):
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name).__doc__, f"{package}.{name} has no docstring"
    with pytest.raises(AttributeError, match="has no attribute 'pretrian'"):
        _ = module.pretrian
    source = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    imported = {
        alias.name
        for block in source.body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and str(statement.module).split(".")[0] == package
        for alias in statement.names
    }
    defined = {node.name for node in source.body if isinstance(node, ast.FunctionDef)}
    assert imported | defined == set(module.__all__), "what type checkers see is not what there is"


@pytest.mark.parametrize(
    "name", ["shards.build", "shards.stream", "pretraining.pretrain", "finetuning.finetune", "gap.measure"]
)
def test_a_docstring_names_what_is_raised(name):
    package, _, function = name.rpartition(".")
    text = inspect.getdoc(getattr(importlib.import_module(package), function)) or ""
    assert "Raises ValueError" in text or "Raises TypeError" in text


def test_packages_are_marked_as_typed():
    packages = ("runtime", *PACKAGES, "launch")
    assert [name for name in packages if not (ROOT / name / "py.typed").is_file()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["*"]


@pytest.mark.slow
def test_mypy_knows_every_option_and_refuses_others(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(TYPED, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--follow-imports",
        "silent",
    ]
    command += ["--cache-dir", str(tmp_path / "cache"), str(script)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    found = sorted({int(line.split(":")[1]) for line in printed.splitlines() if ": error:" in line})
    expected = [number for number, line in enumerate(TYPED.splitlines(), start=1) if line.endswith("# error")]
    assert found == expected, printed
