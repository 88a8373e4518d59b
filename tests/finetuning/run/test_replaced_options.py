"""Options that users of the `transformers` scripts type are answered with what does their work here."""

import importlib
import re
from dataclasses import fields

import pytest

from finetuning.run.option_checks import RECIPES, options_class
from finetuning.run.replaced_options import BY_REPLACEMENT, replaced_option
from finetuning.sweep.sweep import make_sweep
from runtime.options.command_line import parse_options


def names_of(recipe):
    return {one.name for one in fields(options_class(recipe))}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--do_train"], "--do_train is not an option of this program: a run trains unless --num_train_epochs is 0"),
        (["--overwrite_output_dir", "true"], "--resume_from_checkpoint false drops it"),
        (
            ["--evaluation_strategy=epoch"],
            "--evaluation_strategy is not an option of this program: the validation set is scored after",
        ),
        (["--save-strategy", "epoch"], "use --save_steps N"),
        (["--prediction_csv_dir", "x"], "prediction.csv (predictions.csv, where texts are classified) is written to"),
        (["--fp16", "--num_labels", "2"], "--bf16 auto, true or false"),
        (["--checkpointing_steps", "10", "--lerning_rate", "1"], "did you mean --learning_rate?"),
    ],
)
def test_what_replaces_an_option_is_said(recipe, given, message, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"finetuning.{recipe}").main(given)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("recipe", RECIPES)
def test_bf16_may_stand_alone_as_a_flag(recipe):
    cls = options_class(recipe)
    assert parse_options(cls, ["--bf16", "--seed", "3"]).bf16 == "true"
    assert (parse_options(cls, ["--bf16", "false"]).bf16, parse_options(cls, []).bf16) == ("false", "auto")


def test_in_option_files_and_sweeps_too(tmp_path, capsys):
    file = tmp_path / "options.yaml"
    file.write_text("do_eval: true\n")
    with pytest.raises(SystemExit):
        importlib.import_module("finetuning.qa").main([str(file)])
    assert "the validation set is always scored" in capsys.readouterr().err
    with pytest.raises(ValueError, match="fp16 is not an option of this program: use --bf16"):
        make_sweep({"recipe": "qa", "base": {"fp16": True}})


def test_no_recipe_has_a_replaced_option_and_every_replacement_is_one_of_some_recipe():
    known = {recipe: names_of(recipe) for recipe in RECIPES}
    replaced = {name: replacement for replacement, names in BY_REPLACEMENT.items() for name in names}
    assert not set(replaced) & set().union(*known.values())
    for name, replacement in replaced.items():
        told = re.findall(r"--(\w+)", replacement)
        limited = re.findall(r"(\w+)\.py", replacement) or RECIPES  # a hint for some recipes names them
        for recipe in limited:
            assert set(told) <= known[recipe], (name, recipe)


@pytest.mark.parametrize(
    ("recipe", "option", "message"),
    [
        (
            "multiple_choice",
            "--pooling",
            "--pooling is not an option of this program: it is one of glue.py and classification.py",
        ),
        ("qa", "--task-name", "--task-name is not an option of this program: it is one of glue.py"),
        ("glue", "--doc_stride", "it is one of qa.py and multiple_choice.py and token_classification.py"),
        ("classification", "--chain", "it is one of multiple_choice.py"),
    ],
)
def test_of_an_option_of_another_recipe_it_is_said_which(recipe, option, message, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(f"finetuning.{recipe}").main([option, "1"])
    assert message in capsys.readouterr().err


def test_an_option_that_only_some_recipes_have_is_known_with_them():
    known = {recipe: names_of(recipe) for recipe in RECIPES}
    for name in set().union(*known.values()) - set.intersection(*known.values()):
        told = re.findall(r"(\w+)\.py", str(replaced_option(name)))
        assert told == [recipe for recipe in RECIPES if name in known[recipe]]
    assert replaced_option("nothing_of_the_kind") is None
