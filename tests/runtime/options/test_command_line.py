"""Command lines: unknown names, files of options, what the launchers inject."""

import json
from dataclasses import dataclass, field

import pytest
import yaml

from finetuning.recipes.options.glue import GlueOptions
from finetuning.recipes.options.qa import QAOptions
from finetuning.sweep.runner import command
from finetuning.sweep.sweep import make_sweep
from gap.study.options import GapOptions
from gap.study.until_options import PretrainCommandOptions as PretrainingCommand
from pretraining.model.configuration import parse_overrides
from pretraining.overfit.options import OverfitOptions
from pretraining.plan.options import PretrainingOptions
from runtime.files.unique_keys import parse_yaml
from runtime.options.command_line import parse_options, parse_with_names


@dataclass(frozen=True)
class Options:
    output_dir: str = "runs"
    learning_rate: float = 1e-3
    deepspeed: str | None = None
    bf16: bool = False
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"nargs": "+"})

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise ValueError(f"--learning_rate {self.learning_rate}: above 0")


def test_values_and_types():
    options = parse_options(Options, ["--learning_rate", "2e-3", "--bf16", "true", "--seeds", "1", "2"])
    assert options == Options(learning_rate=2e-3, bf16=True, seeds=[1, 2])


@pytest.mark.parametrize("injected", ["--local_rank=1", "--local-rank=3"])
def test_the_launcher_s_rank_is_ignored_wherever_it_stands(injected, tmp_path):
    assert parse_options(Options, [injected, "--output_dir", "x"]).output_dir == "x"
    file = tmp_path / "options.yaml"
    file.write_text("output_dir: there\n")
    assert parse_options(Options, [injected, str(file)]).output_dir == "there"


def test_names_stand_before_the_options_and_behind_a_file_of_them(tmp_path):
    options = ["--output_dir", "x"]
    assert parse_with_names(Options, ["a", "b", *options]) == (["a", "b"], Options(output_dir="x"))
    assert parse_with_names(Options, ["--local_rank=1", "a.yaml.d", *options])[0] == ["a.yaml.d"]
    file = tmp_path / "options.yaml"
    file.write_text("output_dir: there\n")
    assert parse_with_names(Options, [str(file), "a"]) == (["a"], Options(output_dir="there"))
    assert parse_with_names(Options, []) == ([], Options())


def test_deepspeed_takes_a_path():
    assert parse_options(Options, ["--deepspeed", "zero2.json"]).deepspeed == "zero2.json"


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["--learning_rat", "1"], "--learning_rate"),
        (["--lerning_rate=1"], "--learning_rate"),
        (["--ouput_dir", "x"], "--output_dir"),
        (["--deepspeed_config", "x"], "--deepspeed"),
    ],
)
def test_an_unknown_option_is_answered_with_the_nearest(arguments, nearest, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(Options, arguments)
    assert ended.value.code == 2
    assert f"did you mean {nearest}?" in capsys.readouterr().err


def test_a_misspelt_option_that_is_required_is_answered_with_the_nearest(capsys):
    @dataclass
    class Needy:
        sweep_file: str
        learning_rate: float = 1e-4

    with pytest.raises(SystemExit):
        parse_options(Needy, ["--sweep_fil", "a.yaml"])
    assert "did you mean --sweep_file?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse_options(Needy, ["--learning_rate", "1"])
    assert "the following arguments are required: --sweep_file" in capsys.readouterr().err
    assert parse_options(Needy, ["--sweep_file", "a"]).sweep_file == "a"


def test_abbreviations_are_unknown_options(capsys):
    with pytest.raises(SystemExit):
        parse_options(PretrainingOptions, ["--budget", "1"])
    assert "unknown option --budget" in capsys.readouterr().err


def test_a_value_without_an_option_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse_options(Options, ["--output_dir", "a", "b"])
    assert "unexpected argument 'b'" in capsys.readouterr().err


def test_a_rule_of_the_dataclass_ends_as_argparse_does(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(Options, ["--learning_rate", "-1"])
    assert ended.value.code == 2
    assert "--learning_rate -1.0: above 0" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["learning_rate", "max_grad_norm", "save_minutes"])
def test_no_number_is_nan(name, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(PretrainingOptions, [f"--{name}", "nan"])
    assert ended.value.code == 2
    assert f"--{name} nan is not a number" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_file_is_read_and_the_command_line_overrides_it(tmp_path, suffix):
    file = tmp_path / f"options{suffix}"
    file.write_text(json.dumps({"learning_rate": 0.5, "bf16": True, "seeds": [3, 4], "deepspeed": None}))
    options = parse_options(Options, [str(file), "--learning_rate", "0.25"])
    assert options == Options(learning_rate=0.25, bf16=True, seeds=[3, 4])


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_booleans_and_mappings_of_a_file_are_what_the_options_mean(tmp_path, suffix):
    file = tmp_path / f"options{suffix}"
    file.write_text(json.dumps({"bf16": False, "fsdp_offload": True, "config_overrides": {"num_hidden_layers": 3}}))
    options = parse_options(PretrainingOptions, [str(file)])
    assert (options.bf16, options.fsdp_offload) == ("false", True)
    assert parse_overrides(options.config_overrides) == {"num_hidden_layers": 3}
    assert parse_options(PretrainingOptions, ["--bf16", "True"]).bf16 == "true"


@pytest.mark.parametrize(
    ("cls", "name", "values", "joined"),
    [
        (PretrainingOptions, "series", [1e5, 4e5], "100000.0,400000.0"),
        (PretrainingOptions, "length_schedule", ["128:0.9", "512:0.1"], "128:0.9,512:0.1"),
        (PretrainingOptions, "config_overrides", ["num_hidden_layers=3", "hidden_size=32"], None),
        (PretrainingOptions, "report_to", ["tensorboard"], "tensorboard"),
        (PretrainingCommand, "tasks", ["qa:a", "qa:b"], "qa:a,qa:b"),
        (OverfitOptions, "config_overrides", ["num_hidden_layers=3"], "num_hidden_layers=3"),
        (GapOptions, "learning_rates", [2e-5, 5e-5], "2e-05,5e-05"),
        (GapOptions, "num_train_epochs", [2, 4], "2,4"),
        (GapOptions, "kinds", ["annealed", "raw"], "annealed,raw"),
        (GlueOptions, "task_name", ["rte", "mrpc"], "rte,mrpc"),
        (QAOptions, "report_to", ["tensorboard", "mlflow"], "tensorboard,mlflow"),
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_list_of_a_file_is_what_commas_are_on_the_command_line(tmp_path, cls, name, values, joined, suffix):
    file = tmp_path / f"options{suffix}"
    file.write_text(json.dumps({name: values}))
    assert getattr(parse_options(cls, [str(file)]), name) == (joined or ",".join(values))


def test_a_list_of_a_sweep_s_base_is_what_commas_are(tmp_path):
    base = {"model_name_or_path": "owner/model", "report_to": ["tensorboard", "none"]}
    cell = make_sweep({"recipe": "qa", "base": base}).cells[0]
    assert "tensorboard,none" in command("qa", cell.options, tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"output_dir": ["a", "b"]}, "unexpected argument 'b'"),
        ({"series": []}, "series: an empty list; name a value, or leave the option out"),
        ({"pretraining": ["--seed", "3"]}, "argument --pretraining"),
    ],
)
def test_a_list_for_one_value_and_an_empty_one_are_refused(tmp_path, capsys, content, complaint):
    file = tmp_path / "options.json"
    file.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as ended:
        parse_options(GapOptions, [str(file)])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("learning_rat: 1", "did you mean learning_rate"),
        ("- a\n- b", "must map option names"),
        ("a: [", "cannot be read"),
        ("!!python/object/apply:os.system ['true']", "cannot be read"),
        ("\ud800", "cannot be read"),
    ],
)
def test_a_file_that_is_no_mapping_of_options_is_refused(tmp_path, capsys, content, complaint):
    file = tmp_path / "options.yaml"
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(SystemExit):
        parse_options(Options, [str(file)])
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_an_option_that_stands_twice_in_a_file_is_refused(tmp_path, suffix, capsys):
    file = tmp_path / f"options{suffix}"
    file.write_text('{"learning_rate": 0.5,\n"output_dir": "x",\n"learning_rate": 0.25}')
    with pytest.raises(SystemExit):
        parse_options(Options, [str(file)])
    told = capsys.readouterr().err
    assert "key learning_rate " in told
    assert "keep one" in told


def test_a_merged_key_may_be_overridden():
    assert parse_yaml("a: {deep: {x: &x {<<: {k: 1, l: 2}, k: 3}}}\nb: {<<: *x, l: 4}") == {
        "a": {"deep": {"x": {"k": 3, "l": 2}}},
        "b": {"k": 3, "l": 4},
    }
    with pytest.raises(yaml.YAMLError, match="key k is in line 1 and again"):
        parse_yaml("a: [{k: 1, 'k': 2}]")


def test_a_missing_file_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_options(Options, [str(tmp_path / "gone.yaml")])
    assert "gone.yaml is not a file" in capsys.readouterr().err
