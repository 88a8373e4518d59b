"""The examples of docs/python-api.md and the notebook from corpus to curve: they run as they stand."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "python-api.md"
NOTEBOOK = ROOT / "docs" / "from-corpus-to-curve.ipynb"
MOST_SECONDS = 1200.0  # four times the five minutes that it promises: other jobs may share the cores


def examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell) -> str:
    """What a cell has printed or shown, as text and HTML."""
    texts = [output.get("text", "") for output in cell.outputs]
    return "".join(texts + [str(output.get("data", {}).get("text/html", "")) for output in cell.outputs])


def check_outputs(notebook) -> None:
    """Every cell has run, none has failed, and the curve is in what the study shows."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    study = next(shown(cell) for cell in cells if cell.source == "study")
    assert "% of the gap" in study
    assert study.count("data:image/png;base64,") == 2
    last = shown(cells[-1])
    assert re.match(r"gap: [\d.]+% \[[\d.]+%, [\d.]+%\]", last)
    assert "of it closed: " in last


def test_every_example_is_python():
    assert len(examples()) >= 6
    for example in examples():
        compile(example, str(PAGE), "exec")


def test_the_notebook_is_valid_and_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert len(code_cells(notebook)) >= 6
    for cell in code_cells(notebook):
        compile(cell.source, str(NOTEBOOK), "exec")
        assert (cell.outputs, cell.execution_count) == ([], None), "clear all outputs before saving"
    page = NOTEBOOK.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page):
        assert (NOTEBOOK.parent / link).exists(), link


@pytest.mark.slow
def test_the_examples_of_the_page_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "examples"}
    for example in examples():
        exec(compile(example, str(PAGE), "exec"), names)  # noqa: S102 - our own page
    assert names["batches"].position == names["resumed"].position == 640
    assert [entry["budget_tokens"] for entry in names["run"].checkpoints] == [0, 1e5, 2e5]
    assert 0 <= names["outcome"].scores["eval_accuracy"] <= 1
    assert names["study"].report.is_file()
    assert names["figure"].axes


@pytest.mark.long
@pytest.mark.timeout(MOST_SECONDS)
def test_the_notebook_runs_from_corpus_to_curve(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook, timeout=MOST_SECONDS, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    check_outputs(notebook)
