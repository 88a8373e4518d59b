"""DeepSpeed JSON files, changed at random: a whole configuration, or a refusal that names the file."""

import json
from pathlib import Path

import pytest
from file_mutations import few_and_many, refusals

from pretraining.engines.deepspeed_config import load_config, resolve_config
from pretraining.engines.updating.optimizers import OptimizerOptions

FILES = sorted((Path(__file__).resolve().parents[3] / "ds_configs").glob("*.json"))
OPTIMIZER = {"type": "AdamW", "params": {"lr": "auto", "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": "auto"}}


@few_and_many
@pytest.mark.parametrize("file", [FILES[2], FILES[-1]], ids=lambda file: file.stem)
def test_a_file_of_deepspeed(tmp_path, file, rounds):
    path = tmp_path / file.name
    content = {**json.loads(file.read_text()), "optimizer": OPTIMIZER}
    path.write_text(json.dumps(content, indent=1))

    def read():
        resolve_config(
            load_config(path),
            micro_batch_size=4,
            accumulation=3,
            world_size=2,
            clipping=1.0,
            bf16=None,
            optimizer=OptimizerOptions(),
            source=str(path),
        )

    refusals(path, read, rounds, most_lines=25, longest=8000)
