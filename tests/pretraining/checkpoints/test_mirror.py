"""The copy of a run in a store: what is brought back, what is refused, and what retention leaves."""

import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pretraining.checkpoints import saving
from pretraining.checkpoints.checkpoint import committed, defect
from pretraining.checkpoints.mirror import RunMirror
from pretraining.checkpoints.resumption import check_nothing_is_lost
from pretraining.checkpoints.saving import CheckpointSaver
from pretraining.checkpoints.series import FIELDS, add_to_series, read_series
from pretraining.run import _pretrain
from runtime.processes.ranks import Ranks
from runtime.stores.folders import folders_in
from runtime.stores.store import Store

IDENTITY = {"shards": "abc", "seed": 0}
NAMES = [f"step-{number:08d}-000" for number in range(1, 6)]


class Host:
    """A machine with its folder, and the mirror of its run."""

    def __init__(self, directory, store, keep=2, seed=0):
        self.said = []
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.mirror = RunMirror(store, directory, keep=keep, say=self.said.append)
        self.mirror.restore()
        (directory / "run.json").write_text(json.dumps({"schema_version": 1, "identity": IDENTITY | {"seed": seed}}))
        self.saver = CheckpointSaver(
            directory / "checkpoints",
            Ranks(),
            keep=keep,
            in_background=False,
            after_commit=self.mirror.committed,
            pinned=self.mirror.pinned,
        )

    def save(self, number, **state):
        (self.directory / "journal.jsonl").write_text(
            "".join(f'{{"serial": {serial}}}\n' for serial in range(1, number + 1))
        )
        value = torch.full((3,), float(number))
        self.saver.save(NAMES[number - 1], tensors=[("weight", value)], state={"serial": number, **state})

    def export(self, name):
        folder = self.directory / "series" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"name": name}))
        values = {"path": f"series/{name}", "kind": "raw", "budget_tokens": float(name[4:]), "pretraining_seed": 0}
        add_to_series(self.directory / "series.json", {**dict.fromkeys(FIELDS, 1), **values})
        self.mirror.exported(f"series/{name}")

    def checkpoints(self):
        return [path.name for path in committed(self.directory / "checkpoints")][::-1]

    def end(self):
        assert self.mirror.close(20) == []


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def stored(store):
    return folders_in(store.sizes(), "checkpoints")


def test_an_empty_machine_gets_the_newest_checkpoint_the_series_and_the_journal(store, tmp_path):
    first = Host(tmp_path / "one", store)
    first.mirror.begin(None)
    for number in (1, 2, 3):
        first.save(number)
        first.mirror.uploader.close(0.0)
        first.mirror.uploader._closed.clear()
    first.export("raw-100")
    first.end()
    assert NAMES[2] in stored(store)
    second = Host(tmp_path / "two", store)
    assert second.checkpoints() == [NAMES[2]]
    assert defect(tmp_path / "two" / "checkpoints" / NAMES[2]) is None
    assert (tmp_path / "two" / "journal.jsonl").read_text() == (tmp_path / "one" / "journal.jsonl").read_text()
    (entry,) = read_series(tmp_path / "two")
    assert json.loads((Path(entry["path"]) / "config.json").read_text()) == {"name": "raw-100"}
    assert second.said == [f"checkpoint {NAMES[2]} is downloaded from {store}"]
    second.mirror.close(1)


def test_a_newer_checkpoint_of_the_store_comes_with_its_records(store, tmp_path):
    first = Host(tmp_path / "one", store)
    first.save(1)
    (tmp_path / "one" / "until.json").write_text("1 look")
    first.end()
    second = Host(tmp_path / "two", store)
    second.save(2)
    (tmp_path / "two" / "until.json").write_text("2 looks")
    second.mirror.begin(NAMES[1])
    second.end()
    back = Host(tmp_path / "one", store)
    assert back.checkpoints() == NAMES[:2]
    assert (tmp_path / "one" / "until.json").read_text() == "2 looks"
    assert len((tmp_path / "one" / "journal.jsonl").read_text().splitlines()) == 2
    back.mirror.close(1)


def test_what_the_store_lacks_is_uploaded_at_the_next_start(store, tmp_path):
    first = Host(tmp_path / "one", store)
    first.mirror.uploader.submit = lambda *given, **more: None  # the machine loses its network
    first.save(1)
    first.export("raw-100")
    first.mirror.close(0)
    assert stored(store) == []
    again = Host(tmp_path / "one", store)
    assert again.checkpoints() == [NAMES[0]]
    again.mirror.begin(NAMES[0])
    again.end()
    assert stored(store) == [NAMES[0]]
    assert folders_in(store.sizes(), "series") == ["raw-100"]
    assert "series.json" in store.sizes()


def test_a_damaged_checkpoint_of_the_store_is_skipped_for_an_earlier_one(store, tmp_path):
    first = Host(tmp_path / "one", store)
    for number in (1, 2):
        first.save(number)
        while first.mirror.uploader.unfinished:
            pass
    first.end()
    assert stored(store) == NAMES[:2]
    name = f"checkpoints/{NAMES[1]}/rank-00000.safetensors"
    store.write(name, bytes(store.sizes()[name]))
    second = Host(tmp_path / "two", store)
    assert second.checkpoints() == [NAMES[0]]
    assert f"checkpoint {NAMES[1]} of {store} is skipped" in second.said[0]
    second.mirror.close(1)
    store.write(f"checkpoints/{NAMES[0]}/state.json", b"{}")
    with pytest.raises(ValueError, match=r"no checkpoint in .* is valid"):
        Host(tmp_path / "three", store)


def test_a_branch_comes_with_the_checkpoint_that_it_returns_to(store, tmp_path):
    first = Host(tmp_path / "one", store, keep=1)
    first.save(1)
    first.save(2, fork=NAMES[0], segment=1)
    first.end()
    second = Host(tmp_path / "two", store)
    assert second.checkpoints() == NAMES[:2]
    second.mirror.close(1)


def test_retention_counts_checkpoints_that_need_no_other_one(store, tmp_path):
    """Those of a branch are of no use once its fork is gone; a second machine has only the newest and its fork."""
    first = Host(tmp_path / "one", store, keep=2)

    def save(host, number, **branch):
        host.save(number, **branch)
        while host.mirror.uploader.unfinished:
            pass

    for number in (1, 2):
        save(first, number)
    for number in (3, 4):
        save(first, number, fork=NAMES[1], segment=1)
    first.end()
    assert stored(store) == [NAMES[0], NAMES[1], NAMES[3]]
    second = Host(tmp_path / "two", store, keep=2)
    assert second.checkpoints() == [NAMES[1], NAMES[3]]
    second.mirror.begin(NAMES[3])
    save(second, 5)
    second.end()
    assert {NAMES[1], NAMES[4]} <= set(stored(store))
    store.write(f"checkpoints/{NAMES[4]}/state.json", b"{}")
    third = Host(tmp_path / "three", store)
    assert NAMES[1] in third.checkpoints()
    third.mirror.close(1)


def test_retention_waits_for_the_upload_here_and_for_the_newer_one_there(store, tmp_path, monkeypatch):
    host, removed = Host(tmp_path / "one", store, keep=1), []
    upload, blocked = store.upload, []

    def slow(path, name):
        while name.startswith("checkpoints") and not blocked:
            pass
        upload(path, name)

    monkeypatch.setattr(store, "upload", slow)
    monkeypatch.setattr(saving, "remove_whole", lambda path: (removed.append(path.name), shutil.rmtree(path, True)))
    for number in (1, 2, 3):
        host.save(number)
    assert NAMES[0] in host.checkpoints()  # which is being uploaded all the time
    blocked.append("no more")
    while host.mirror.uploader.unfinished:
        pass
    host.save(4)
    host.end()
    assert host.checkpoints() == [NAMES[3]]
    assert stored(store) == [NAMES[3]]


def test_only_uploads_that_are_under_way_or_wait_keep_checkpoints(store, tmp_path, monkeypatch):
    host, begun = Host(tmp_path / "one", store, keep=1), []
    upload, go = store.upload, threading.Event()

    def slow(path, name):
        if name.startswith("checkpoints"):
            begun.append(name)
            go.wait(20)
        upload(path, name)

    monkeypatch.setattr(store, "upload", slow)
    host.save(1)
    while not begun:
        pass
    for number in (2, 3, 4):
        host.save(number)
    assert host.checkpoints() == [NAMES[0], NAMES[3]]
    assert host.mirror.pinned() == [NAMES[0], NAMES[3]]
    go.set()
    while host.mirror.uploader.pending:
        pass
    host.mirror.uploader.given_up.append(f"checkpoint {NAMES[2]}")
    host.save(5)
    host.end()
    assert host.checkpoints() == [NAMES[4]]


def test_another_run_in_the_folder_or_in_the_store_is_refused(store, tmp_path):
    first = Host(tmp_path / "one", store)
    first.save(1)
    first.end()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "run.json").write_text(json.dumps({"schema_version": 1, "identity": IDENTITY | {"seed": 7}}))
    with pytest.raises(ValueError, match=r"holds another run than .*seed"):
        Host(tmp_path / "two", store)


def test_checkpoints_of_another_course_are_set_aside_in_the_store(store, tmp_path):
    first = Host(tmp_path / "one", store)
    for number in (1, 2):
        first.save(number)
        while first.mirror.uploader.unfinished:
            pass
    first.end()
    again = Host(tmp_path / "one", store)
    again.mirror.begin(NAMES[0])
    again.end()
    assert stored(store) == [NAMES[0]]
    assert f"checkpoints/{NAMES[1]}/MANIFEST.json.aside" in store.sizes()
    shutil.rmtree(tmp_path / "one" / "checkpoints" / NAMES[1])
    later = Host(tmp_path / "one", store, keep=1)
    later.save(3)
    later.end()
    assert stored(store) == [NAMES[2]]
    assert set(store.sizes(f"checkpoints/{NAMES[1]}")) == {
        f"checkpoints/{NAMES[1]}/{name}" for name in ("MANIFEST.json.aside", "rank-00000.safetensors", "state.json")
    }


def test_names_that_leave_the_folder_are_not_downloaded(store, tmp_path):
    store.write("notes.txt", b"1")
    evil = tmp_path / "store" / ".hidden"
    evil.write_bytes(b"1")
    series = {"schema_version": 1, "checkpoints": [{**dict.fromkeys(FIELDS, 1), "path": "../evil", "kind": "raw"}]}
    store.write("series.json", json.dumps(series).encode())
    with pytest.raises(ValueError, match=r"lies outside|series\.json"):
        Host(tmp_path / "one", store)
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "one" / ".hidden").exists()


def test_a_listed_export_that_the_store_lacks_is_left_out_and_said(store, tmp_path):
    first = Host(tmp_path / "one", store)
    first.save(1)
    for name in ("raw-100", "raw-200", "raw-300"):
        first.export(name)
    first.end()
    store.remove(["series/raw-100/MANIFEST.json", "series/raw-200/config.json"])
    second = Host(tmp_path / "two", store)
    (entry,) = read_series(tmp_path / "two")
    assert Path(entry["path"]).name == "raw-300"
    left_out = [text for text in second.said if "is left out of the series" in text]
    assert [text.split(" of ")[0] for text in left_out] == ["warning: series/raw-100", "warning: series/raw-200"]
    second.mirror.close(1)


def test_the_list_follows_all_exports_that_are_uploaded_at_a_start(store, tmp_path, monkeypatch):
    host = Host(tmp_path / "one", store)
    host.mirror.uploader.submit = lambda *given, **more: None  # the machine loses its network
    host.save(1)
    for name in ("raw-100", "raw-200", "raw-300"):
        host.export(name)
    host.mirror.close(0)
    again, write, there = Host(tmp_path / "one", store), store.write, []

    def noting(name, content):
        if name == "series.json":
            there.append(folders_in(store.sizes(), "series"))
        write(name, content)

    monkeypatch.setattr(store, "write", noting)
    again.mirror.begin(NAMES[0])
    again.end()
    assert there == [["raw-100", "raw-200", "raw-300"]]


def test_exports_are_listed_in_the_store_once_a_checkpoint_is_there(store, tmp_path):
    """Else an empty machine would be told that its checkpoints are lost."""
    first = Host(tmp_path / "one", store)
    for name in ("raw-100", "raw-200"):
        first.export(name)
    first.mirror._begun = True
    first.end()
    assert folders_in(store.sizes(), "series") == ["raw-100", "raw-200"]
    assert "series.json" not in store.sizes()
    again = Host(tmp_path / "two", store)
    again.mirror.begin(None)
    check_nothing_is_lost(tmp_path / "two")
    again.export("raw-100")
    again.save(1)
    again.end()
    (entry,) = json.loads(store.read("series.json", 10_000))["checkpoints"]
    assert entry["path"] == "series/raw-100"


def test_a_run_that_its_watch_has_ended_uploads_what_the_store_lacks(store, tmp_path, monkeypatch, capsys):
    first = Host(tmp_path / "one", store)
    first.mirror.uploader.submit = lambda *given, **more: None  # the machine loses its network
    first.save(1)
    first.export("raw-100")
    first.mirror.close(0)
    for name in ("prepare_shards", "open_location", "Plan", "earlier_choices", "agreed", "announce"):
        monkeypatch.setattr(f"pretraining.run.{name}", lambda *given, **more: SimpleNamespace(manifest=None))
    options = SimpleNamespace(dry_run=False, push_to_hub=False, cache_gb=1.0)
    again = Host(tmp_path / "one", store)
    watch = SimpleNamespace(reached="gap closed")
    _pretrain(options, Ranks(), torch.device("cpu"), again.mirror, lambda plan, shards: watch)
    again.end()
    assert capsys.readouterr().out == "already stopped: gap closed\n"
    assert stored(store) == [NAMES[0]]
    assert {"series.json", "run.json", "series/raw-100/MANIFEST.json"} <= set(store.sizes())
