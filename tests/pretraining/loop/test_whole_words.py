"""Whole-word masking without words is said, with the remedy, before a run begins."""

from __future__ import annotations

import random

import pytest
from pretraining_runs import in_process

from pretraining.loop.whole_words import ideograph_share
from shards.building.builder import build_shards
from shards.building.options import BuildOptions

WORDS = ["中国", "人民", "北京", "大学", "经济", "发展", "历史", "文化", "河流", "山脉"]


def build(folder, join, **options):
    generator = random.Random(3)
    folder.mkdir(parents=True)
    lines = [join.join(generator.choices(WORDS if join == "" else ["river", "town", "hill"], k=60)) for _ in range(80)]
    (folder / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")
    fixed = {"vocab_size": 200, "block_tokens": 512, "validation_fraction": 0.2, "near_duplicates": "ignore"}
    chosen = {**fixed, "document": "line", "processes": 1, "drop_duplicates": False, **options}
    build_shards(BuildOptions(input=[str(folder / "corpus.txt")], output_dir=str(folder / "shards"), **chosen))
    return folder / "shards"


@pytest.mark.parametrize("vocabulary", ["wordpiece", "byte_bpe"])
def test_chinese_without_words_is_warned_of_and_nothing_else_is(tmp_path, capsys, vocabulary):
    shards = build(tmp_path / "zh", "", vocabulary=vocabulary, vocab_size=400)
    masked = {"whole_word_masking": "true", "dry_run": "true"}
    in_process(shards, tmp_path / "run", masked)
    said = capsys.readouterr().out
    assert "100% of the text is Chinese and the shards store no word boundaries" in said
    assert "launch/build_shards.py --words jieba" in said
    in_process(shards, tmp_path / "run", {"dry_run": "true"})
    in_process(build(tmp_path / "en", " "), tmp_path / "run", masked)
    assert "Chinese" not in capsys.readouterr().out


def test_chinese_with_words_is_not(tmp_path, capsys):
    pytest.importorskip("jieba")
    shards = build(tmp_path / "zh", "", words="jieba")
    in_process(shards, tmp_path / "run", {"whole_word_masking": "true", "dry_run": "true"})
    assert "Chinese" not in capsys.readouterr().out


def test_a_damaged_shard_is_a_contradiction(tmp_path, capsys):
    shards = build(tmp_path / "zh", "")
    path = shards / "validation-000000.tar"
    path.write_bytes(path.read_bytes()[:-512] + b"x" * 512)
    in_process(shards, tmp_path / "run", {"whole_word_masking": "true", "dry_run": "true"}, status=2)
    assert "validation-000000.tar: its sha256 is not the manifest's" in capsys.readouterr().err


def test_blanks_are_no_characters():
    assert ideograph_share("中 文\n ab") == 0.5
    assert ideograph_share("") == 0.0
