"""Models at addresses and in branches of the hub: fetched once, verified, named by their content, refused by name.

Server and hub are stand-ins on this machine, their clients the real ones.
"""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from s3_server import s3_server
from servers.hub_server import StoredRepository, hub_server

from runtime import model_places
from runtime.hub import hub_is_reachable
from runtime.model_places import forget_places, is_elsewhere, model_place
from runtime.stores.folders import put_folder
from runtime.stores.store import Store

FILES = {"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": b"weights" * 1000}
PLACE = "runs/x/series/annealed-1000"
ADDRESS = f"s3://bucket/{PLACE}"
NAME = "lab/small"


@pytest.fixture(scope="module")
def server():
    with s3_server() as running:
        yield running


@pytest.fixture
def s3(server, monkeypatch, tmp_path):
    """The server with an empty bucket, and an empty cache."""
    server.meet(monkeypatch)
    for name in server.names():
        server.delete(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget_places()
    return server


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in with two branches, and an empty cache."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with hub_server() as running:
        running.meet(monkeypatch, tmp_path / "hub cache")
        hub_is_reachable.cache_clear()
        forget_places()
        repository = running.repositories[NAME] = StoredRepository(private=False)
        repository.commit("main", dict(FILES), "first")
        other = {
            **FILES,
            "model.safetensors": b"other" * 1000,
            "pytorch_model.bin": b"pickle",
            "onnx/config.json": b"x",
        }
        repository.commit("tokens-1e6", other, "second")
        yield running
    hub_is_reachable.cache_clear()


def exported(folder, store, place=PLACE, **changes):
    """Upload an export as a run does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (FILES | changes).items():
        (folder / name).write_bytes(content)
    put_folder(store, folder, place)


def content_of(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != "MANIFEST.json"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (ADDRESS, True), ("gs://bucket/x", True), ("lab/small@main", True), ("small@1a2b", True),
        ("lab/small@refs/pr/1", True), ("lab/small", False), ("runs/x@2", False), ("./x@2", False), ("a/b/c@2", False),
        ("lab/small@", False), ("@main", False), ("lab/small@here", False),
    ],
)  # fmt: skip
def test_a_name_says_where_a_model_is_and_a_folder_comes_first(tmp_path, monkeypatch, name, expected):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs", "lab/small@here"):
        Path(folder).mkdir(parents=True)
    if name.startswith("lab/small") and name != "lab/small@here":
        (tmp_path / "lab" / "small@here").rmdir()
        (tmp_path / "lab").rmdir()
    assert is_elsewhere(name) is expected
    if not expected:
        assert model_place(name) == name


def test_an_export_is_fetched_once_through_cut_connections_and_verified(s3, tmp_path, capsys):
    exported(tmp_path / "local", Store("s3://bucket"))
    s3.proxy.cuts[:] = [("down", 300), ("down", 2_000), ("up", 100)]
    folder = model_place(ADDRESS)
    assert content_of(folder) == FILES
    assert capsys.readouterr().err == f"fetching {ADDRESS} (3 files, 0.0 MB)\n"
    assert s3.proxy.num_cut
    forget_places()
    assert model_place(f"{ADDRESS}/") == folder
    Path(folder, "model.safetensors").write_bytes(b"damage!" * 1000)
    assert model_place(ADDRESS) == folder, "within one call the first answer holds"
    forget_places()
    assert content_of(model_place(ADDRESS)) == FILES
    assert capsys.readouterr().err.startswith("fetching")


def test_a_fetch_that_was_killed_goes_on_with_the_files_that_are_there(s3, tmp_path, monkeypatch):
    exported(tmp_path / "local", Store("s3://bucket"))
    download, fetched = Store.download, []

    def breaking(self, name, path, **expected):
        fetched.append(name)
        if len(fetched) == 2:
            raise KeyboardInterrupt
        download(self, name, path, **expected)

    monkeypatch.setattr(Store, "download", breaking)
    with pytest.raises(KeyboardInterrupt):
        model_place(ADDRESS)
    assert not list((tmp_path / "cache").rglob("MANIFEST.json"))
    assert content_of(model_place(ADDRESS)) == FILES
    assert sorted(fetched) == sorted([*FILES, fetched[1]])


def test_one_of_several_processes_fetches_and_all_get_the_folder(s3, tmp_path, capsys):
    exported(tmp_path / "local", Store("s3://bucket"))
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(model_places._fetched, [ADDRESS] * 4))
    assert len(set(folders)) == 1
    assert capsys.readouterr().err.count("fetching") == 1


def test_other_content_at_an_address_is_another_folder_with_and_without_a_manifest(s3, tmp_path):
    """Of the same sizes, too: a model that was trained again has them."""
    exported(tmp_path / "local", Store("s3://bucket"))
    first = model_place(ADDRESS)
    exported(tmp_path / "local", Store("s3://bucket"), **{"model.safetensors": b"WEIGHTS" * 1000})
    for name, content in FILES.items():
        s3.put(f"copied/best/{name}", content)
    s3.put("copied/best/pytorch_model.bin", b"pickle")
    plain = model_place("s3://bucket/copied/best")
    s3.put("copied/best/model.safetensors", b"WEIGHTS" * 1000)
    forget_places()
    second, changed = model_place(ADDRESS), model_place("s3://bucket/copied/best")
    assert content_of(first) == content_of(plain) == FILES
    assert content_of(second) == content_of(changed) == FILES | {"model.safetensors": b"WEIGHTS" * 1000}


def refused(name):
    with pytest.raises(ValueError, match=r"\w") as caught:
        model_place(name, "--reference")
    assert str(caught.value).startswith("--reference ")
    return str(caught.value)


def test_what_is_no_checkpoint_is_refused_with_those_that_are_near(s3, tmp_path):
    store = Store("s3://bucket")
    exported(tmp_path / "local", store)
    exported(tmp_path / "local", store, "runs/x/series/raw-0")
    store.write("runs/x/checkpoints/step-1/state.json", b"{}")
    store.write("runs/x/run.json", b"{}")
    for name in ("config.json", "model.safetensors"):
        store.write(f"runs/x/series/annealed-2000/{name}", b"{}")
    near = "in s3://bucket/runs/x/series there are annealed-1000, annealed-2000, raw-0"
    assert refused("s3://bucket/runs/x/series/annealed-999").endswith(f"does not exist: check the address; {near}")
    assert refused("s3://bucket/run/x").endswith("s3://bucket/run/x does not exist: check the address")
    said = refused("s3://bucket/runs/x")
    assert "is no checkpoint: it has no config.json; add the name of one that it holds: series/annealed-1000" in said
    assert "has no config.json but state.json" in refused("s3://bucket/runs/x/checkpoints/step-1")
    said = refused("s3://bucket/runs/x/series/annealed-2000")
    assert "has no MANIFEST.json, which is uploaded last: its upload is not finished" in said
    assert "no such bucket" in refused("s3://another-bucket/x")
    assert "credentials" in refused("s3://key:secret@bucket/x")


def test_a_damaged_object_is_refused_by_name_and_leaves_nothing_under_its_name(s3, tmp_path):
    exported(tmp_path / "local", Store("s3://bucket"))
    s3.put(f"{PLACE}/model.safetensors", b"WEIGHTS" * 1000)
    assert f"{ADDRESS}/model.safetensors: its sha256 begins with" in refused(ADDRESS)
    s3.put(f"{PLACE}/MANIFEST.json", b'{"schema_version": 1, "files": [{"name": "../x"}]}')
    forget_places()
    assert "MANIFEST.json" in refused(ADDRESS)
    s3.delete(f"{PLACE}/model.safetensors")
    exported_again = Store("s3://bucket").sizes(PLACE)
    assert exported_again
    assert not list((tmp_path / "cache").rglob("MANIFEST.json"))


def test_credentials_that_are_missing_are_said_and_a_failure_is_not_tried_again_in_one_call(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    said = refused(ADDRESS)
    assert said.startswith(f"--reference {ADDRESS}: listing")
    assert "check the credentials" in said
    monkeypatch.setattr(Store, "versions", lambda self: pytest.fail("asked again"))
    assert refused(ADDRESS) == said


def test_a_revision_is_fetched_without_what_no_model_is_read_from(hub, capsys):
    folder = model_place(f"{NAME}@tokens-1e6")
    assert content_of(folder) == FILES | {"model.safetensors": b"other" * 1000}
    assert capsys.readouterr().err == f"fetching {NAME}@tokens-1e6 (3 files, 0.0 MB)\n"
    commit = hub.repositories[NAME].branches["tokens-1e6"]
    assert content_of(model_place(f"{NAME}@{commit}")) == content_of(folder)
    assert content_of(model_place(f"{NAME}@main")) == FILES


def test_a_branch_that_moved_is_another_folder_and_without_a_network_the_last_one_counts(hub, monkeypatch):
    name = f"{NAME}@tokens-1e6"
    first = model_place(name)
    hub.repositories[NAME].commit("tokens-1e6", dict(FILES), "third")
    assert model_place(name) == first
    forget_places()
    second = model_place(name)
    assert content_of(first) != content_of(second) == FILES
    os.utime(first, (1, 1))
    forget_places()
    monkeypatch.setattr(model_places, "hub_is_reachable", lambda: False)
    assert model_place(name) == second
    assert "was not fetched before, and the hub cannot be reached" in refused(f"{NAME}@main")


def test_what_the_hub_does_not_have_is_said_with_the_branches_that_it_has(hub):
    assert "lab/small@tokens-2e6: there is no such branch or commit; there are main, tokens-1e6" in refused(
        f"{NAME}@tokens-2e6"
    )
    assert "lab/large@main: the hub" in refused("lab/large@main")
    hub.repositories[NAME].commit("empty", {"README.md": b"x"}, "third")
    assert "lab/small@empty is no checkpoint: it has no config.json but README.md" in refused(f"{NAME}@empty")


def test_a_file_that_is_not_what_the_hub_lists_is_refused(hub, monkeypatch, tmp_path):
    listed = model_places.HubRepository.files

    def files(self, revision):
        there = listed(self, revision)
        there["model.safetensors"].lfs.sha256 = "0" * 64
        return there

    monkeypatch.setattr(model_places.HubRepository, "files", files)
    assert "model.safetensors is not the file that the hub lists" in refused(f"{NAME}@main")
    assert not list((tmp_path / "cache").rglob("MANIFEST.json"))


def test_a_hub_that_breaks_off_is_a_failure_of_the_network(hub):
    hub.failing = [("model.safetensors", 503)] * 99
    with pytest.raises(OSError, match=r"lab/small@main was not fetched .*run the same command again"):
        model_place(f"{NAME}@main")
    hub.failing = []
    forget_places()
    assert content_of(model_place(f"{NAME}@main")) == FILES


def test_a_manifest_of_the_cache_that_is_no_manifest_is_made_anew(s3, tmp_path):
    exported(tmp_path / "local", Store("s3://bucket"))
    folder = Path(model_place(ADDRESS))
    for content in (b"", b"[]", json.dumps({"schema_version": 1, "files": [{"name": "gone"}]}).encode()):
        (folder / "MANIFEST.json").write_bytes(content)
        forget_places()
        assert content_of(model_place(ADDRESS)) == FILES
