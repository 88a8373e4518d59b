"""Continued pretraining takes the shards of the source's own tokenizer only: the same id must be the same token."""

import json
import shutil

import pytest
from pretraining_runs import in_process, series, write_shards, write_tokenizer

from pretraining.model.source.tokenizer import check_source_tokenizer

WORDS = ["cat", "dog", "fish", "bird"]


@pytest.fixture
def source(tmp_path):
    return write_tokenizer(tmp_path / "source", [*WORDS, "horse"])


def test_a_source_that_knows_more_tokens_is_the_same_tokenizer(source, tmp_path):
    assert check_source_tokenizer(str(source), write_tokenizer(tmp_path / "ours", WORDS)) is None


def test_the_same_number_of_tokens_in_another_order_is_refused(source, tmp_path):
    ours = write_tokenizer(tmp_path / "ours", ["dog", "cat", "fish", "bird", "horse"])
    with pytest.raises(
        ValueError, match=r"2 of their 10 tokens .* first 'dog' \(5 in the shards, 6 there\)"
    ) as refused:
        check_source_tokenizer(str(source), ours)
    assert f"build the shards again with --tokenizer {source}" in str(refused.value)


def test_a_token_that_the_source_lacks_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match=r"first 'cow' \(9 in the shards, none there\)"):
        check_source_tokenizer(str(source), write_tokenizer(tmp_path / "ours", [*WORDS, "cow"]))


def test_weights_alone_are_warned_of(tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "no tokenizer to compare" in check_source_tokenizer(str(weights), write_tokenizer(tmp_path / "ours", WORDS))


def test_a_run_continues_its_own_export_and_no_other_vocabulary(tmp_path, capsys):
    shards = write_shards(tmp_path / "data")
    in_process(shards, tmp_path / "first", {"budget_tokens": 800})
    export = tmp_path / "first" / series(tmp_path / "first")[-1]["path"]
    names = {"model": None, "config_overrides": None, "model_name_or_path": export, "dry_run": "true"}
    capsys.readouterr()
    in_process(shards, tmp_path / "second", names)
    assert "no tokenizer to compare" not in capsys.readouterr().out
    other = tmp_path / "other"
    shutil.copytree(export, other)
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    last, before = (
        token for token, number in vocabulary.items() if number in (len(vocabulary) - 1, len(vocabulary) - 2)
    )
    vocabulary[last], vocabulary[before] = vocabulary[before], vocabulary[last]
    (other / "tokenizer.json").write_text(json.dumps(content))
    in_process(shards, tmp_path / "second", {**names, "model_name_or_path": other}, status=2)
    assert "contradiction: " in (said := capsys.readouterr().err)
    assert "2 of their 45 tokens" in said
    assert not (tmp_path / "second").exists()
