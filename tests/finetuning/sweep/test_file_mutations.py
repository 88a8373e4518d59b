"""Sweep files, changed at random: rows and cells, or a refusal that names the file."""

import yaml
from file_mutations import few_and_many, refusals

from finetuning.sweep.sweep import read_sweep

CONTENT = {
    "recipe": "classification",
    "metric": "eval_accuracy",
    "base": {"num_train_epochs": 2, "model_name_or_path": "hub/model"},
    "list": [{}, {"weight_decay": 0.0}],
    "grid": {"pooling": ["cls", "mean"], "learning_rate": [1e-4, 1e-3]},
    "seeds": [0, 1, 2],
}


@few_and_many
def test_a_sweep(tmp_path, rounds):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(CONTENT))

    def read():
        sweep = read_sweep(path)
        for row in range(len(sweep.rows)):
            sweep.changes(row)

    refusals(path, read, rounds, most_lines=12)
