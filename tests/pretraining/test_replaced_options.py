"""Options that users of `transformers` language-modelling scripts type are answered with what does their work."""

import re
from dataclasses import fields

import pytest

from gap.study.options import GapOptions
from gap.study.until_options import PretrainCommandOptions
from launch import pretrain
from pretraining.replaced_options import REPLACED_OPTIONS
from runtime.options.command_line import parse_options
from shards.building.options import BuildOptions


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--train_file", "corpus.txt"], "launch/build_shards.py --input FILE --output_dir DIR, then --shards DIR"),
        (["--mlm_probability=0.3"], "--mlm_probability is not an option of this program: use --mask_rate"),
        (["--num-train-epochs", "3", "--fp16_opt_level", "O1"], "use --bf16 auto, true or false, or --fp16"),
        (["--lerning_rate", "1"], "did you mean --learning_rate?"),
    ],
)
def test_what_replaces_an_option_is_said(given, message, capsys):
    with pytest.raises(SystemExit) as ended:
        pretrain.main(given)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_every_replacement_is_an_option_and_nothing_that_is_one_is_replaced():
    own, building = ({one.name for one in fields(cls)} for cls in (PretrainCommandOptions, BuildOptions))
    assert not set(REPLACED_OPTIONS) & own
    for name, replacement in REPLACED_OPTIONS.items():
        told = set(re.findall(r"--(\w+)", replacement))
        assert told <= own | building, name
        assert told <= own or "build_shards.py" in replacement, name


@pytest.mark.parametrize("cls", [PretrainCommandOptions, GapOptions])
def test_bf16_may_stand_alone_as_a_flag(cls):
    assert parse_options(cls, ["--bf16", "--draws" if cls is GapOptions else "--seed", "300"]).bf16 == "true"
    assert (parse_options(cls, ["--bf16", "false"]).bf16, parse_options(cls, []).bf16) == ("false", "auto")
