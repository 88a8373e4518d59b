"""Every file is written by runtime/files, which writes whole files, or is one of the exceptions listed here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("runtime", "shards", "pretraining", "finetuning", "gap", "launch")
WRITING_METHODS = {"write_text", "write_bytes", "savefig", "to_csv", "savez"}
EXCEPTIONS = {
    "finetuning/loop/run_log.py": "appends to a journal, whose damaged lines are skipped",
    "finetuning/run/saved_model.py": "writes into a whole_directory, which syncs and renames it",
    "finetuning/sweep/report.py": "appends to a log for people",
    "finetuning/sweep/runner.py": "appends to a log for people",
    "gap/cells/worker.py": "opens a file that is locked and stays empty",
    "pretraining/loop/journal.py": "appends to a journal, whose damaged lines are skipped",
    "pretraining/publishing/export.py": "writes into a whole_directory, which syncs and renames it",
    "runtime/stores/cache.py": "opens a file that is locked before it is removed, and not written",
    "runtime/stores/folders.py": "writes into a whole_directory, which syncs and renames it",
    "runtime/stores/store.py": "a download is put together from pieces before it is synced and renamed",
    "shards/storage/https_folder.py": "a download has several tries before it is synced and renamed",
}


def writing_calls(source: str) -> list[int]:
    """The lines that open a file for writing, or write it by a method of its path or of a figure.

    A variable as the first argument is a stream, a plain `write_text(path, text)` is that of runtime/files.
    """
    return [node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and _writes(node)]


def _writes(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if isinstance(call.func, ast.Attribute) and name in WRITING_METHODS:
        return not (call.args and isinstance(call.args[0], ast.Name) and call.args[0].id in ("file", "stream"))
    modes = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
    return name == "open" and any(set(text) <= set("rwxabt+") and set(text) & set("wxa+") for text in texts)


def test_files_are_written_by_runtime_files_alone():
    sources = (path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py")))
    writers = {str(path.relative_to(ROOT)): writing_calls(path.read_text("utf-8")) for path in sources}
    others = {name: lines for name, lines in writers.items() if lines and not name.startswith("runtime/files/")}
    assert others.keys() == EXCEPTIONS.keys(), {name: others.get(name) for name in others.keys() ^ EXCEPTIONS.keys()}


@pytest.mark.parametrize(
    ("source", "writes"),
    [
        ("path.open('w')", True),
        ("open(path, 'wb')", True),
        ("open(path, mode='a')", True),
        ("path.write_text(text)", True),
        ("(folder / name).write_bytes(content)", True),
        ("figure.savefig(path)", True),
        ("figure.savefig(file, format='png')", False),
        ("write_text(path, text)", False),
        ("path.open('rb')", False),
        ("open(path)", False),
        ("open_archive('a')", False),
    ],
)
def test_what_counts_as_writing(source, writes):
    assert bool(writing_calls(source)) is writes
