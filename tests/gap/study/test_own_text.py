"""From a sentence encoder and a task to the report: shards, further pretraining, own texts alone, and the study."""

from __future__ import annotations

import json
import random

import pytest
import torch
from pretraining_runs import in_process
from tiny_encoder import tiny_config, tiny_tokenizer
from tiny_gap import COLOURS, THINGS, WORDS, write_texts
from transformers import BertModel

from launch import build_shards, gap

NAMED = {"model": None, "config_overrides": None, "series": 2, "budget_tokens": 8_000, "mask_rate": 0.3}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sentence_encoder_is_trained_further_and_its_own_texts_are_a_control(tmp_path, capsys):
    base, data, generator = tmp_path / "encoder", tmp_path / "data", random.Random(3)
    tokenizer = tiny_tokenizer([*WORDS, *map(str, range(10))])
    torch.manual_seed(0)
    BertModel(tiny_config("bert", len(tokenizer))).save_pretrained(base)
    tokenizer.save_pretrained(base)
    write_texts(data / "train.json", 120, seed=1)
    write_texts(data / "test.json", 40, seed=2)
    corpus = [f"the {generator.choice(THINGS)} is {generator.choice(COLOURS)} and good ." for _ in range(800)]
    (tmp_path / "corpus.txt").write_text("\n".join(corpus))
    shape = ["--tokenizer", str(base), "--block_tokens", "512", "--near_duplicates", "ignore", "--processes", "1"]
    shape += ["--validation_fraction", "0.1"]
    task = f"texts=classification:{data}"
    texts = ["--input", str(tmp_path / "corpus.txt"), "--document", "line", "--drop_duplicates", "false"]
    assert build_shards.main([*texts, "--output_dir", str(tmp_path / "shards"), *shape]) == 0
    assert build_shards.main(["--task", task, "--output_dir", str(tmp_path / "own-shards"), *shape]) == 0

    for shards, run in (("shards", "more"), ("own-shards", "own")):
        in_process(tmp_path / shards, tmp_path / run, {**NAMED, "model_name_or_path": base})
    series = json.loads((tmp_path / "more" / "series.json").read_text())["checkpoints"]
    assert {row["started_from"].rpartition("/")[2] for row in series} == {"encoder"}
    assert all(row["fresh_head"] for row in series)

    command = ["--series", str(tmp_path / "more"), "--self_pretrained", str(tmp_path / "own"), "--tasks", task]
    command += ["--learning_rates", "1e-3", "--num_train_epochs", "1", "--scratch_longer", "2", "--bf16", "false"]
    command += ["--max_seq_length", "32", "--draws", "200", "--output_dir", str(tmp_path / "study")]
    assert gap.main(command) == 0
    cells = [json.loads(line) for line in (tmp_path / "study" / "scores.jsonl").read_text().splitlines()]
    places = {(cell["kind"], cell["budget_tokens"], cell["control"]) for cell in cells}
    assert places == {
        ("start", 0, None),
        ("raw", 0, None),
        ("raw", 0, "scratch_longer"),
        ("annealed", 4000, None),
        ("annealed", 8000, None),
        ("annealed", 8000, "self_pretrained"),
    }
    page = (tmp_path / "study" / "report.html").read_text()
    assert "Gap from your starting checkpoint to annealed at 8,000 tokens" in page
    assert "Pretraining on the task&#39;s own training texts alone (8,000 tokens)" in page
    assert "was not searched for the scored texts: all have fewer than 13 tokens" in page

    # The shards of more training examples than the study uses hold something else.
    assert gap.main([*command[:5], f"{task}@60", *command[6:-1], str(tmp_path / "other"), "--dry_run", "true"]) == 2
    assert "were not built from exactly the training texts of texts" in capsys.readouterr().err
