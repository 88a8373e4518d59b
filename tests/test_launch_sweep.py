"""launch/sweep.py: the command line, and two real cells of a tiny model from beginning to table."""

import csv
import json

import pytest
import yaml
from tiny_text_model import reviews, write_reviews, write_tiny_model

from launch import sweep


def test_refusals_end_with_status_2(tmp_path, capsys):
    assert sweep.main(["--sweep_file", str(tmp_path / "none.yaml"), "--output_dir", str(tmp_path / "out")]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "a.yaml").write_text("recipe: glue\ngrid: {poling: [cls]}\n")
    assert sweep.main(["--sweep_file", str(tmp_path / "a.yaml"), "--output_dir", str(tmp_path / "out")]) == 2
    assert "did you mean pooling" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        sweep.main(["--output_dir", "x"])


def test_the_command_is_an_argument_list(tmp_path):
    from finetuning.sweep_run import command

    found = command("classification", {"pooling": "mean; rm -rf /", "from_scratch": True, "seeds": [1, 2]}, tmp_path)
    assert found[1].endswith("finetuning/classification.py")
    assert found[2:] == [
        "--pooling", "mean; rm -rf /", "--from_scratch", "True", "--seeds", "1", "2", "--output_dir", str(tmp_path),
    ]  # fmt: skip


@pytest.mark.slow
def test_real_cells_from_file_to_table(tmp_path):
    content = {
        "recipe": "classification",
        "base": {
            "model_name_or_path": write_tiny_model(tmp_path / "model"),
            "train_file": write_reviews(tmp_path / "train.json", reviews(96, seed=1)),
            "validation_file": write_reviews(tmp_path / "validation.json", reviews(30, seed=2)),
            "num_train_epochs": 1,
            "learning_rate": 0.01,
            "save_model": False,
            "report_to": "none",
        },
        "grid": {"pooling": ["cls", "mean"]},
        "seeds": [0],
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    out = tmp_path / "out"
    assert sweep.main(["--sweep_file", str(tmp_path / "sweep.yaml"), "--output_dir", str(out)]) == 0
    with (out / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["pooling"] for row in rows} == {"cls", "mean"}
    scores = [json.loads(path.read_text())["eval_accuracy"] for path in out.glob("cells/*/all_results.json")]
    assert sorted(float(row["mean"]) for row in rows) == sorted(scores)
    assert (out / "curves.png").is_file()
