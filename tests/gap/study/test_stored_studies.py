"""`launch/gap.py` with a series in a bucket, and its results there."""

import json
import shutil

import pytest
import torch
from s3_server import s3_server
from tiny_gap import write_corpus, write_pairs, write_series

from gap.cells.store import read_scores
from launch import gap
from runtime.stores.folders import put_folder
from runtime.stores.store import Store


@pytest.fixture
def s3(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with s3_server() as server:
        server.meet(monkeypatch)
        yield server


@pytest.mark.slow
def test_a_study_of_a_series_in_a_bucket_goes_on_where_the_bucket_has_its_results(s3, tmp_path, capsys):
    threads = torch.get_num_threads()
    series = write_series(tmp_path / "run0", seed=0, masked_lm=True)
    write_corpus(tmp_path, series.parent / "series" / "raw-0")
    write_pairs(tmp_path / "pairs", 22, 3)
    store = Store("s3://bucket/runs/one")
    for entry in json.loads(series.read_text())["checkpoints"]:
        put_folder(store, series.parent / entry["path"], entry["path"])
    store.write("series.json", series.read_bytes())
    options = {
        "series": "s3://bucket/runs/one/series.json", "tasks": f"blimp=pairs:{tmp_path / 'pairs'}",
        "shards": tmp_path / "shards", "intervals": "false", "max_parallel": 1, "bf16": "false",
        "output_dir": tmp_path / "gap", "upload": "s3://bucket/runs/gap",
    }  # fmt: skip
    argv = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    assert gap.main(argv) == 0
    cells = read_scores(tmp_path / "gap" / "scores.jsonl")
    names = s3.names()
    assert {"runs/gap/scores.jsonl", "runs/gap/report.html", f"runs/gap/{cells[0].predictions}"} <= set(names)
    assert not [name for name in names if name.endswith((".lock", ".safetensors")) and "/gap/" in name]
    shutil.rmtree(tmp_path / "gap")
    capsys.readouterr()
    assert gap.main(argv) == 0
    said = capsys.readouterr().out
    assert "files are downloaded from s3://bucket/runs/gap" in said
    assert [cell.score for cell in read_scores(tmp_path / "gap" / "scores.jsonl")] == [cell.score for cell in cells]
    assert "cell 1/" not in said
    # A damaged export in the bucket is told from the one that the cache still has.
    shutil.rmtree(tmp_path / "cache")
    weights = next(name for name in names if name.endswith("model.safetensors"))
    s3.put(weights, b"\0" * len(s3.content(weights)))
    assert gap.main(argv) == 2
    assert "its sha256 begins with" in capsys.readouterr().err
    torch.set_num_threads(threads)
