"""What a sweep file means: rows, seeds, fingerprints, and what is refused."""

import math

import pytest
import yaml

from finetuning.model.checkpoint_files import DEFAULT_RUN
from finetuning.sweep.sweep import make_sweep, read_sweep
from pretraining.checkpoints.series import FIELDS, add_to_series

MODEL = {"model_name_or_path": "hub/model"}
GRID = {
    "recipe": "classification",
    "base": {"num_train_epochs": 2, "seed": 7, **MODEL},
    "grid": {"pooling": ["cls", "mean"], "learning_rate": [1e-4, 1e-3]},
    "seeds": [0, 1, 2],
}


def test_a_grid_is_every_combination_times_the_seeds():
    sweep = make_sweep(GRID)
    assert len(sweep.rows) == 4
    assert len({cell.fingerprint for cell in sweep.cells}) == len(sweep.cells) == 12
    assert sweep.varied == ["pooling", "learning_rate"]
    assert {cell.seed for cell in sweep.cells} == {0, 1, 2}
    assert all(cell.options["num_train_epochs"] == 2 for cell in sweep.cells)
    assert all("seed" not in row for row in sweep.rows)


def test_a_list_adds_to_the_base_and_a_grid_applies_to_each_of_it():
    sweep = make_sweep(
        {
            "recipe": "classification",
            "base": MODEL,
            "list": [{}, {"weight_decay": 0.0}],
            "grid": {"pooling": ["cls", "max"]},
        }
    )
    assert [(row["pooling"], row["weight_decay"]) for row in sweep.rows] == [
        ("cls", 0.01),
        ("max", 0.01),
        ("cls", 0.0),
        ("max", 0.0),
    ]
    assert sweep.cells[0].options == {"pooling": "cls", **MODEL, "seed": 42}
    assert sweep.seeds == (42,)


def test_seeds_may_stand_in_the_grid_or_in_the_base():
    assert make_sweep({"recipe": "glue", "grid": {"seed": [3, 4]}, "base": {"task_name": "rte", **MODEL}}).seeds == (
        3,
        4,
    )
    assert make_sweep({"recipe": "glue", "base": {"seed": 9, "task_name": "rte", **MODEL}}).seeds == (9,)


def test_rows_that_differ_in_several_options_are_known():
    """The report changed batch, weight decay and clipping together and could not say which made it fail."""
    sweep = make_sweep(
        {
            "recipe": "classification",
            "base": {"global_batch_rows": 16, "weight_decay": 0.0, "max_grad_norm": 0.0, **MODEL},
            "list": [
                {},
                {"pooling": "mean"},
                {"global_batch_rows": 32, "weight_decay": 0.01, "max_grad_norm": 1.0},
            ],
        }
    )
    assert [len(sweep.changes(row)) for row in range(3)] == [0, 1, 3]
    assert sweep.changes(2) == {"global_batch_rows": 32, "weight_decay": 0.01, "max_grad_norm": 1.0}


def test_the_baseline_can_be_named():
    assert make_sweep({**GRID, "baseline": {"pooling": "mean", "learning_rate": 1e-4}}).baseline == 2
    with pytest.raises(ValueError, match="matches 2 rows"):
        make_sweep({**GRID, "baseline": {"pooling": "mean"}})


def test_the_fingerprint_follows_options_and_file_contents_only(tmp_path):
    data = tmp_path / "train.csv"
    data.write_text("text,label\na,1\n")
    content = {"recipe": "classification", "base": {"train_file": str(data), **MODEL}, "grid": {"pooling": ["cls"]}}
    first = make_sweep(content).cells[0].fingerprint
    written_out = {"pooling": "cls", "weight_decay": 0.01, "truncation": "head", **content["base"]}
    assert make_sweep({**content, "grid": {}, "base": written_out}).cells[0].fingerprint == first
    assert make_sweep({**content, "seeds": [1]}).cells[0].fingerprint != first
    data.write_text("text,label\nb,1\n")
    assert make_sweep(content).cells[0].fingerprint != first


BAD = {
    "recipe is 'bert'": {"recipe": "bert"},
    "unknown option gird: did you mean grid": {"recipe": "glue", "gird": {}},
    "unknown option poling: did you mean pooling": {"recipe": "classification", "grid": {"poling": ["cls"]}},
    "output_dir cannot be set": {"recipe": "glue", "base": {"output_dir": "x"}},
    "the same run": {
        "recipe": "classification",
        "base": MODEL,
        "list": [{"weight_decay": 0.1}, {"weight_decay": 0.1}],
    },
    r"rows 1 \(model_name_or_path=hub/model\) and 2 \(.*, truncation=head\) are the same run": {
        "recipe": "classification",
        "base": MODEL,
        "list": [{}, {"truncation": "head"}],
    },
    "invalid float value: 'fast'": {"recipe": "qa", "base": {"learning_rate": "fast", **MODEL}},
    r"`task_name: \[sst2, cola\]` under `grid`": {"recipe": "glue", "base": {"task_name": "sst2,cola", **MODEL}},
    "is 9 tasks": {"recipe": "glue", "grid": {"task_name": ["all"]}, "base": MODEL},
    "use each of cola, .* once, or all": {"recipe": "glue", "base": {"task_name": "sst3", **MODEL}},
    "list of integers": {"recipe": "glue", "seeds": ["a"]},
    "name each once": {"recipe": "glue", "seeds": [1, 1]},
    "has no values": {"recipe": "glue", "grid": {"weight_decay": []}},
    "a word, true, false": {"recipe": "glue", "base": {"weight_decay": {"a": 1}}},
    "must map option names": {"recipe": "glue", "base": [1]},
    "it must be a list": {"recipe": "glue", "list": {"a": 1}},
}


@pytest.mark.parametrize("message", sorted(BAD))
def test_bad_sweeps_are_refused(message):
    with pytest.raises(ValueError, match=message):
        make_sweep(BAD[message])


REFUSED_BY_THE_RECIPE = [
    ("classification", {"pooling": "clss"}, "--pooling clss: use one of cls"),
    ("classification", {"truncation": "middle"}, "--truncation middle: use one of head"),
    ("classification", {"learning_rate": -1}, r"--learning_rate -1\.0: use a finite number, at least 0"),
    ("classification", {"learning_rate": math.nan}, "--learning_rate nan is not a number"),
    ("qa", {"lr_scheduler_type": "cosine"}, "--lr_scheduler_type cosine: use one of linear"),
    ("qa", {"weight_decay": -0.1}, "--weight_decay -0.1: use a finite number, at least 0"),
    ("qa", {"bf16": "maybe"}, "--bf16 maybe: use one of auto"),
    ("qa", {"report_to": "paper"}, "--report_to paper: use one of tensorboard"),
    ("qa", {"learning_rate": [1, 2]}, "2 is left over: the option before it takes a single value"),
    (
        "qa",
        {"global_batch_rows": 9, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        "give only two of the three",
    ),
    ("qa", {"train_file": "none.json"}, "--train_file none.json: no such file or folder"),
    ("qa", {"model_name_or_path": "./none"}, "--model_name_or_path ./none: no such file or folder"),
    ("qa", {"dataset_name": "./none"}, "--dataset_name ./none: no such file or folder"),
    ("qa", {"dataset_name": "squad", "test_file": "x.json"}, "both name the data"),
    ("classification", {"data": "none"}, "--data none: no such file or folder"),
    ("classification", {"data": "none", "train_file": "x.csv"}, "--data and --train_file: name the data one way only"),
    ("glue", {"task_name": "rte", "data_dir": "none"}, "--data_dir none: no such file or folder"),
    ("glue", {"task_name": "rte", "data_dir": "."}, r"no train\.tsv .* RTE needs it"),
    ("multiple_choice", {"qa_learning_rate": 1.0}, "does nothing without --chain"),
    ("multiple_choice", {"chain": True, "qa_learning_rate": -1.0}, r"--qa_learning_rate -1\.0"),
]


@pytest.mark.parametrize(("recipe", "options", "message"), REFUSED_BY_THE_RECIPE)
def test_what_a_cell_would_refuse_is_refused_before_the_first_starts(tmp_path, monkeypatch, recipe, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        make_sweep({"recipe": recipe, "base": {**MODEL, **options}})


def test_a_bad_value_is_told_with_its_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = {"pooling": ["cls", "clss"], "weight_decay": [0.0, 0.1]}
    told = r"s\.yaml: row 3 \(pooling=clss, weight_decay=0\.0\): --pooling clss: use one of cls, mean, max"
    with pytest.raises(ValueError, match=told):
        make_sweep({"recipe": "classification", "base": MODEL, "grid": grid}, source="s.yaml")


def test_names_of_the_hub_are_left_to_the_cells_and_words_are_those_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = {**MODEL, "dataset_name": "owner/set", "bf16": True}
    assert make_sweep({"recipe": "qa", "base": base}).rows[0]["bf16"] == "true"


def test_scientific_numbers_are_numbers_however_yaml_reads_them():
    words = yaml.safe_load(
        "{recipe: classification, base: {model_name_or_path: a}, grid: {learning_rate: [2e-5, 1.5e-4]}}"
    )
    assert words["grid"]["learning_rate"][0] == "2e-5"
    assert [row["learning_rate"] for row in make_sweep(words).rows] == [2e-5, 1.5e-4]


def test_files_are_read_safely(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(GRID, sort_keys=False))
    assert read_sweep(path) == make_sweep(GRID, source=str(path))
    for text in ("!!python/object/apply:os.getcwd []", "a: [", "- 1", ""):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"sweep\.yaml"):
            read_sweep(path)
    with pytest.raises(ValueError, match="no such file"):
        read_sweep(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="not a regular file"):
        read_sweep(tmp_path)


def test_a_key_that_stands_twice_is_refused_with_its_lines(tmp_path):
    """YAML's readers keep the second and drop the first without a word."""
    path = tmp_path / "sweep.yaml"
    path.write_text("recipe: qa\ngrid:\n  weight_decay: [0.1]\nseeds: [1]\ngrid:\n  max_grad_norm: [1.0]\n")
    with pytest.raises(ValueError, match=r"(?s)sweep\.yaml.*key grid is in line 2 and again here.*line 5"):
        read_sweep(path)


def write_checkpoint(directory, weights=b"old", tokenizer="{}"):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(weights)
    (directory / "tokenizer.json").write_text(tokenizer)


def only_fingerprint(**base):
    (cell,) = make_sweep({"recipe": "classification", "base": {**MODEL, **base}}).cells
    return cell.fingerprint


def test_a_model_trained_anew_is_another_cell_though_its_files_have_the_same_sizes(tmp_path):
    model = tmp_path / "model"
    write_checkpoint(model)
    first = only_fingerprint(model_name_or_path=str(model))
    write_checkpoint(model)
    assert only_fingerprint(model_name_or_path=str(model)) == first
    write_checkpoint(model, weights=b"new")
    assert only_fingerprint(model_name_or_path=str(model)) != first
    write_checkpoint(model, tokenizer="[]")
    assert only_fingerprint(model_name_or_path=str(model)) != first


def test_a_folder_of_data_counts_by_content_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "aclImdb" / "train" / "pos" / "1.txt"
    text.parent.mkdir(parents=True)
    text.write_text("good")
    first = only_fingerprint(data="aclImdb")
    text.write_text("fine")
    assert only_fingerprint(data="aclImdb") != first


def test_the_default_model_is_named_and_counts_by_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"recipe": "classification", "list": [{}, {"pooling": "mean"}]}
    with pytest.raises(ValueError, match="no checkpoint to start from"):
        make_sweep(content)
    run = tmp_path / DEFAULT_RUN
    write_checkpoint(run / "checkpoint")
    add_to_series(run / "series.json", {**dict.fromkeys(FIELDS, 1), "path": "checkpoint", "kind": "raw"})
    first = make_sweep(content)
    assert first.cells[0].options["model_name_or_path"] == str(DEFAULT_RUN / "checkpoint")
    write_checkpoint(run / "checkpoint", weights=b"new")
    assert not {cell.fingerprint for cell in make_sweep(content).cells} & {cell.fingerprint for cell in first.cells}


def test_rows_are_compared_with_the_values_that_the_recipe_takes(tmp_path):
    """On the small world QA has its own learning rate unless one is given."""
    with pytest.raises(ValueError, match="the same run"):
        make_sweep({"recipe": "qa", "base": MODEL, "grid": {"learning_rate": [5e-5, 1e-3]}})
    sweep = make_sweep(
        {"recipe": "classification", "base": MODEL, "list": [{"weight_decay": 1}, {"truncation": "tail"}]}
    )
    assert [sweep.rows[0][name] for name in sweep.varied] == [1.0, "head"]
