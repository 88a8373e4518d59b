"""Characters that become the unknown token are counted exactly, and documents of them are distinguished."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from finetuning.examples.preflight import Preflight
from finetuning.examples.unknown_share import note_unknown_share, unknown_share
from launch.build_shards import main
from shards.building.builder import Summary
from shards.building.report import closing_report
from shards.building.worker import EncoderOptions, TextEncoder
from shards.storage.manifest import MANIFEST_NAME, read_manifest
from shards.tokenization.unknown_text import count_characters
from shards.tokenization.vocabulary import save_tokenizer, train_vocabulary

HEBREW = "אבגדהוזחטיכלמנסעפצקרשת"
LATIN = "abcdefghij"


def texts_of(alphabet: str, seed: int, count: int, words: int = 40) -> list[str]:
    rng = random.Random(seed)
    known = ["".join(rng.choices(alphabet, k=rng.randint(2, 7))) for _ in range(400)]
    return [" ".join(rng.choices(known, k=words)) + "." for _ in range(count)]


@pytest.fixture(scope="module", params=["wordpiece", "byte_bpe"])
def any_tokenizer(request, tmp_path_factory) -> Path:
    return trained(tmp_path_factory, request.param)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    return trained(tmp_path_factory, "wordpiece")


def trained(tmp_path_factory, kind: str) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    save_tokenizer(train_vocabulary(texts_of(LATIN, 0, 50), kind=kind, vocab_size=400, lowercase=True), directory)
    return directory


def encoder_of(directory: Path, **changes: object) -> TextEncoder:
    options = {"tokenizer_file": str(directory / "tokenizer.json"), "separator_id": 3, "unknown_id": 1}
    return TextEncoder(
        EncoderOptions(**(options | {"special_ids": (0, 1, 2, 3, 4), "token_dtype": "uint16"} | changes))
    )


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def mixed_texts() -> list[str]:
    """Known, unknown and mixed words, a giant one, long and short documents, rare unknown words in long text."""
    latin, hebrew = texts_of(LATIN, 1, 30), texts_of(HEBREW, 2, 20)
    long = [" ".join(latin[:20]) + f" {word} " + " ".join(latin[20:]) for word in ("שלום", "日本", "abשc x\u00a0ש")]
    long.append(" ".join(latin[:5]) + " " + "abcde" * 2_500 + " " + " ".join(latin[5:10]))
    crowded = [f"{one} {other}" for one, other in zip(latin, hebrew, strict=False)]
    return [*latin, *hebrew, *long, *crowded, "ab" * 90, "", "abc 😀 bca", " ".join(latin + hebrew + latin)]


def reference_count(directory: Path, texts: list[str]) -> int:
    """Of whole texts, by the library's offsets."""
    whole = Tokenizer.from_file(str(directory / "tokenizer.json"))
    found = [(text, whole.encode(text, add_special_tokens=False)) for text in texts]
    return sum(
        count_characters(text[first:end])
        for text, one in found
        for number, (first, end) in zip(one.ids, one.offsets, strict=True)
        if number == 1
    )


def test_the_count_is_that_of_the_librarys_offsets(any_tokenizer):
    texts = mixed_texts()
    found = encoder_of(any_tokenizer).encode(texts)
    expected = reference_count(any_tokenizer, texts)
    assert found.unknown_characters == expected
    assert (expected == 0) == (b'"BPE"' in (any_tokenizer / "tokenizer.json").read_bytes())
    assert found.characters == sum(map(count_characters, texts)) == len("".join("".join(texts).split()))


def test_the_count_with_word_starts_is_the_same(tokenizer):
    pytest.importorskip("jieba")
    texts = mixed_texts()
    assert encoder_of(tokenizer, jieba_words=True).encode(texts).unknown_characters == reference_count(tokenizer, texts)


def test_signatures_of_known_text_are_what_they_were_and_unknown_texts_differ(tokenizer):
    known, unknown = texts_of(LATIN, 3, 4), texts_of(HEBREW, 4, 4)
    encoder = encoder_of(tokenizer)
    alone, together = encoder.encode(known).signatures, encoder.encode(known + unknown).signatures
    assert alone is not None
    assert together is not None
    np.testing.assert_array_equal(alone, together[:4])
    pairs = [(one, other) for one in range(4, 8) for other in range(4, one)]
    assert max((together[one] == together[other]).mean() for one, other in pairs) < 0.2


def test_documents_of_unknown_words_are_duplicates_only_where_their_words_are(tokenizer, tmp_path):
    texts = texts_of(HEBREW, 5, 30, words=120)
    near = [text.replace(text.split()[0], "שש", 1) for text in texts[:5]]
    path = write(tmp_path / "a.jsonl", texts + near)
    call = [
        "--input",
        str(path),
        "--tokenizer",
        str(tokenizer),
        "--output_dir",
        str(tmp_path / "out"),
        "--processes",
        "1",
    ]
    assert main(call) == 0
    assert read_manifest(tmp_path / "out").data["dropped"] == {"near_duplicate": 5}


def test_manifest_report_and_warning_give_the_share_and_the_remedy(tokenizer, tmp_path, capsys, caplog):
    texts = texts_of(HEBREW, 6, 20) + texts_of(LATIN, 7, 60)
    path = write(tmp_path / "a.jsonl", texts)
    call = [
        "--input",
        str(path),
        "--tokenizer",
        str(tokenizer),
        "--output_dir",
        str(tmp_path / "out"),
        "--processes",
        "1",
    ]
    assert main(call) == 0
    record = read_manifest(tmp_path / "out").data["unknown_text"]
    expected = reference_count(tokenizer, texts) / sum(map(count_characters, texts))
    assert 0.2 < expected < 0.4
    assert record["share"] == pytest.approx(expected, abs=1e-6)
    report = capsys.readouterr().out
    for text in (report, caplog.text):
        assert f"{expected:.1%} of the characters become [UNK]" in text
        assert "--vocabulary byte_bpe" in text
    assert main(call) == 0
    assert f"{expected:.1%} of the characters become [UNK]" in capsys.readouterr().out


def test_known_text_gives_no_warning_and_older_manifests_no_line(tokenizer, tmp_path, capsys, caplog):
    path = write(tmp_path / "a.jsonl", texts_of(LATIN, 8, 40))
    out = tmp_path / "out"
    assert (
        main(["--input", str(path), "--tokenizer", str(tokenizer), "--output_dir", str(out), "--processes", "1"]) == 0
    )
    assert "unknown: 0.00% of" in capsys.readouterr().out
    assert "become [UNK]" not in caplog.text
    content = json.loads((out / MANIFEST_NAME).read_text())
    del content["unknown_text"]
    (out / MANIFEST_NAME).write_text(json.dumps(content))
    assert "[UNK]" not in closing_report(Summary(read_manifest(out), 0.0, 0, already_built=True), out)


@pytest.mark.parametrize("vocabulary", ["wordpiece", "byte_bpe"])
def test_a_vocabulary_too_small_for_its_own_alphabet_is_counted(vocabulary, tmp_path, capsys):
    """Some hundred ideographs do not fit; bytes always do."""
    texts = texts_of("".join(chr(0x4E00 + number) for number in range(400)), 9, 60)
    path = write(tmp_path / "a.jsonl", texts)
    call = ["--input", str(path), "--output_dir", str(tmp_path / "out"), "--processes", "1", "--vocab_size", "300"]
    assert main([*call, "--vocabulary", vocabulary]) == 0
    share = read_manifest(tmp_path / "out").data["unknown_text"]["share"]
    report = capsys.readouterr().out
    if vocabulary == "byte_bpe":
        assert share == 0
    else:
        assert share > 0.1
        assert "of the characters become [UNK]" in report


def test_processes_and_interruptions_do_not_change_the_count(tokenizer, tmp_path, project_root):
    path = write(tmp_path / "a.jsonl", [text for text in mixed_texts() * 4 if text] + texts_of(HEBREW, 10, 200))

    def build(name: str, processes: int, fault: str = "") -> int:
        code = (
            "import shards.building.chunks; shards.building.chunks.CHUNK_CHARACTERS = 4_000\n"
            "from shards.building.builder import build_shards; from shards.building.options import BuildOptions\n"
            f"build_shards(BuildOptions(input=[{str(path)!r}], output_dir={str(tmp_path / name)!r}, "
            f"tokenizer={str(tokenizer)!r}, processes={processes}, block_tokens=256, blocks_per_shard=4))"
        )
        environment = os.environ | ({"FAULT_POINT": fault} if fault else {})
        return subprocess.run([sys.executable, "-c", code], cwd=project_root, env=environment).returncode

    assert build("one", 1) == build("two", 2) == 0
    assert build("killed", 1, "build.shard:5:kill") == -signal.SIGKILL
    assert build("killed", 2) == 0
    records = [read_manifest(tmp_path / name).data["unknown_text"] for name in ("one", "two", "killed")]
    assert records[0] == records[1] == records[2]
    assert records[0]["unknown_characters"] > 0


def test_the_preflight_of_a_recipe_warns_of_texts_that_the_model_does_not_know(tokenizer):
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    known, unknown = texts_of(LATIN, 11, 30), texts_of(HEBREW, 12, 10)
    assert unknown_share(loaded, []) == unknown_share(loaded, known) == 0
    texts = [text[:2_000] for text in known + unknown]
    expected = reference_count(tokenizer, texts) / sum(map(count_characters, texts))
    found = Preflight()
    note_unknown_share(found, loaded, {"train": texts, "validation": known})
    assert found.figures["preflight_train_unknown_share"] == pytest.approx(expected)
    assert found.figures["preflight_validation_unknown_share"] == 0
    assert len(found.warnings) == 1
    assert f"{expected:.1%} of the characters of train become [UNK]" in found.warnings[0]
    with pytest.raises(ValueError, match="--strict"):
        found.refuse_if(strict=True)
