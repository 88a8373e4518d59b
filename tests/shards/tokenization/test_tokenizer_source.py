"""Tokenizers that others saved: none, broken or empty ones are refused by file, wherever one is asked for."""

import json

import pytest
from pretraining_runs import write_tokenizer

from finetuning.model import checkpoint_files
from launch import build_shards
from pretraining.model.source.tokenizer import check_source_tokenizer
from shards.tokenization.tokenizer_source import TOKENIZER_FILES, open_tokenizer
from shards.tokenization.vocabulary import load_tokenizer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"
WORDS = ["cat", "dog"]


def readers(folder):
    """Every way by which a tokenizer comes into the program."""
    return [
        lambda: open_tokenizer(folder),
        lambda: load_tokenizer(folder),
        lambda: checkpoint_files.load_tokenizer(folder),
        lambda: checkpoint_files.check_encoder(folder, from_scratch=True),
    ]


@pytest.fixture
def saved(tmp_path):
    folder = write_tokenizer(tmp_path / "saved", WORDS)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 7, **shape}))
    return folder


def test_a_whole_one_is_read(saved):
    for read in readers(str(saved)):
        read()


def test_a_folder_without_tokenizer_files_is_refused_though_a_configuration_is_there(saved, tmp_path, capsys):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (saved / name).unlink()
    for read in readers(str(saved)):
        with pytest.raises(
            ValueError, match=rf"{saved} has no tokenizer files \(tokenizer.json, vocab.txt, .*save the"
        ):
            read()
    (tmp_path / "text.txt").write_text("the cat and the dog\n" * 20)
    call = ["--tokenizer", str(saved), "--input", str(tmp_path / "text.txt"), "--output_dir", str(tmp_path / "shards")]
    assert build_shards.main(call) != 0
    assert f"error: {saved} has no tokenizer files" in capsys.readouterr().err
    assert not (tmp_path / "shards" / "manifest.json").exists()


@pytest.mark.parametrize("name", TOKENIZER_FILES)
def test_a_pointer_in_place_of_any_vocabulary_is_refused(saved, name):
    (saved / "tokenizer.json").unlink()
    (saved / name).write_bytes(POINTER)
    for read in readers(str(saved)):
        with pytest.raises(ValueError, match=rf"{saved / name} is a Git LFS pointer.*git lfs pull"):
            read()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"a": NaN}', b"\xff\xfe", b"[" * 9999, POINTER])
def test_a_file_that_is_no_object_is_refused_by_name(saved, name, content):
    (saved / name).write_bytes(content)
    for read in readers(str(saved)):
        with pytest.raises(ValueError, match=f"{saved / name} "):
            read()


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("tokenizer.json", {"model": None}),
        ("tokenizer.json", {"post_processor": {"type": "TemplateProcessing"}}),
        ("tokenizer.json", {"added_tokens": 3}),
        ("tokenizer_config.json", {"tokenizer_class": 5}),
        ("tokenizer_config.json", {"pad_token": ["a"]}),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}),
        ("tokenizer_config.json", {"tokenizer_object": 1}),
    ],
)
def test_json_that_makes_no_tokenizer_is_one_message(saved, name, changed):
    content = json.loads((saved / name).read_text())
    (saved / name).write_text(json.dumps({**content, **changed}))
    for read in readers(str(saved)):
        with pytest.raises(ValueError, match=f"{saved}: its tokenizer could not be read .*save it again"):
            read()


def test_a_vocabulary_of_special_tokens_alone_is_refused(tmp_path):
    folder = write_tokenizer(tmp_path / "empty", [])
    with pytest.raises(ValueError, match="their vocabulary is empty"):
        open_tokenizer(str(folder))


def test_pretraining_refuses_a_broken_tokenizer_and_only_warns_of_none(saved, tmp_path):
    ours = write_tokenizer(tmp_path / "ours", WORDS)
    assert check_source_tokenizer(str(saved), ours) is None
    (saved / "tokenizer.json").write_bytes(POINTER)
    with pytest.raises(ValueError, match="Git LFS pointer"):
        check_source_tokenizer(str(saved), ours)
    (saved / "tokenizer.json").unlink()
    assert "no tokenizer to compare" in check_source_tokenizer(str(saved), ours)
