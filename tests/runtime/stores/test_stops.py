"""A signal while uploads are awaited: what is missing is said, and the store is free for the next job."""

import json
import os
import signal
import threading
from types import SimpleNamespace

import pytest

from pretraining.checkpoints.mirror import mirrored
from runtime.processes.interruption import Interrupted
from runtime.processes.ranks import Ranks
from runtime.stores.records import mirrored_records
from runtime.stores.store import Store


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"schema_version": 1, "identity": {"seed": 0}}))
    return folder


@pytest.fixture
def stopped(monkeypatch):
    """No upload ends, and SIGTERM comes during the first."""
    ends = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: None)

    def upload(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        ends.wait(20)

    monkeypatch.setattr(Store, "upload", upload)
    yield
    ends.set()
    signal.signal(signal.SIGTERM, before)


def of_a_run(folder, store):
    options = SimpleNamespace(
        upload=str(store), output_dir=str(folder), dry_run=False, save_total_limit=2, upload_wait_minutes=0.1
    )
    return mirrored(options, Ranks())


def of_a_study(folder, store):
    return mirrored_records(str(store), folder, wait_minutes=0.1, leave_out=lambda name: False)


@pytest.mark.parametrize("uploading", [of_a_run, of_a_study])
@pytest.mark.parametrize("first", [None, KeyError("first")], ids=["at the end", "after a failure"])
def test_a_signal_ends_the_wait_says_what_is_missing_and_frees_the_store(
    folder, tmp_path, stopped, capsys, uploading, first
):
    store = tmp_path / "store"

    def command():
        with uploading(folder, store) as mirror:
            if mirror is not None:
                mirror.begin(None)
            if first is not None:
                raise first

    with pytest.raises(Interrupted if first is None else KeyError):
        command()
    said = capsys.readouterr().err
    assert f"uploaded to {store} before SIGTERM" in said
    assert "run the same command again on this machine" in said
    assert Store(store).sizes() == {}
    assert not (store / "run.lock").exists()
