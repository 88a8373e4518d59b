"""A user whose command has failed finds its message on docs/troubleshooting.md: the messages are caused here."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
# What a command line says that cannot work; the words behind the arrow begin the heading that it must lead to.
FAILING = """
launch/build_shards.py --input nothing/ --vocab_size 100 --output_dir new -> no such file or folder; for a dataset
launch/build_shards.py --input *.xyz --vocab_size 100 --output_dir new -> matches no readable file
launch/build_shards.py --input table.csv --vocab_size 100 --output_dir new -> has no column
launch/build_shards.py --input lines.jsonl --vocab_size 100 --output_dir used -> ...: give a new or empty directory
launch/build_shards.py --input pointer.jsonl --vocab_size 100 --output_dir new -> is a Git LFS pointer
launch/build_shards.py --input latin.txt --vocab_size 100 --output_dir new -> byte ... is not UTF-8
launch/build_shards.py --input text.txt --vocab_sise 100 --output_dir new -> unknown option
launch/pretrain.py --shards used --model modernbert-tiny -> is missing: give a directory that build_shards has finished
launch/pretrain.py --shards used --model bert-tiny --from_config bare -> ... name the model once
launch/pretrain.py --model bert-tiny --deepspeed zero9.json -> is not a file: name one, such as ds_configs/zero2.json
launch/pretrain.py my.yaml -> is not a file: give a YAML or JSON file of options
launch/gap.py --series runs/series.json --tasks qa:used -> does not exist: make a series with launch/pretrain.py
launch/gap.py --series runs/series.json --tasks essays:used -> is not a task; write KIND:PLACE
launch/report.py used -> holds no ...: name the output folders of gap runs
launch/predict.py --model_name_or_path bare --test_file table.csv --output_dir new -> has no tokenizer files
finetuning/classification.py --train_file table.csv --model_name_or_path used -> has no config.json
finetuning/classification.py --train_file table.csv --data used --model_name_or_path used -> name the data one way only
finetuning/classification.py --train_file table.csv --output_dir new -> no checkpoint to start from
"""
CASES = [tuple(line.split(" -> ")) for line in FAILING.strip().splitlines()]


def headings() -> list[str]:
    return re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)


def pattern_of(heading: str) -> re.Pattern[str]:
    pieces = [re.escape(piece.strip()) for piece in heading.split("...") if piece.strip()]
    return re.compile(".*".join(pieces), re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the command lines name."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "used").mkdir()
    (folder / "used" / "notes.txt").write_text("mine")
    (folder / "text.txt").write_text("some text of some words\n" * 20)
    (folder / "latin.txt").write_bytes("caf\xe9 \xfcber ".encode("latin-1") * 20)
    (folder / "lines.jsonl").write_text('{"text": "some text of some words"}\n' * 20)
    (folder / "table.csv").write_text("words,kind\nsome words,1\nother words,2\n")
    (folder / "pointer.jsonl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 10\n")
    (folder / "bare").mkdir()
    (folder / "bare" / "config.json").write_text(
        json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]})
    )
    return folder


def said(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command prints; it must end with status 2."""
    name, *arguments = command.split()
    try:
        status = importlib.import_module(name.removesuffix(".py").replace("/", ".")).main(arguments)
    except SystemExit as ended:
        status = ended.code
    printed = capsys.readouterr().err
    assert status == 2, printed
    return printed


@pytest.mark.parametrize(("command", "heading"), CASES, ids=[command for command, _ in CASES])
def test_the_message_of_a_failed_command_stands_on_the_page(command, heading, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    printed = said(command, capsys)
    found = [entry for entry in headings() if pattern_of(entry).search(printed)]
    assert any(entry.startswith(heading) for entry in found), (printed, found)


def test_every_expected_heading_is_on_the_page():
    assert [heading for _, heading in CASES if not any(entry.startswith(heading) for entry in headings())] == []
