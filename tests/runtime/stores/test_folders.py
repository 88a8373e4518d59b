"""Folders with a manifest: complete or absent, whatever interrupts an upload."""

import json

import pytest
from file_mutations import few_and_many, refusals

from runtime.stores.folders import fetch_folder, folders_in, manifest_of, parse_manifest, put_folder, remove_folder
from runtime.stores.store import Store


class Breaking(Store):
    """A store that refuses after so many writes."""

    left = 1000

    def _count(self):
        if self.left == 0:
            raise OSError("the connection is cut")
        self.left -= 1

    def upload(self, path, name):
        self._count()
        super().upload(path, name)

    def write(self, name, content):
        self._count()
        super().write(name, content)


@pytest.fixture
def store(tmp_path):
    return Breaking(tmp_path / "store")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "local"
    path.mkdir()
    for name in ("a.bin", "b.bin"):
        (path / name).write_bytes(name.encode() * 100)
    return path


def test_a_folder_comes_back_as_it_was(store, folder, tmp_path):
    assert put_folder(store, folder, "series/raw-0")
    assert not put_folder(store, folder, "series/raw-0")
    fetch_folder(store, "series/raw-0", tmp_path / "back", keep_manifest=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    fetch_folder(store, "series/raw-0", tmp_path / "with", keep_manifest=True)
    assert manifest_of(tmp_path / "with") == manifest_of(folder)


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_folder_whose_upload_broke_off_does_not_exist_until_it_is_repeated(store, folder, tmp_path, writes):
    store.left = writes
    with pytest.raises(OSError, match="cut"):
        put_folder(store, folder, "checkpoints/step-1")
    assert folders_in(store.sizes(), "checkpoints") == []
    with pytest.raises(FileNotFoundError):
        fetch_folder(store, "checkpoints/step-1", tmp_path / "back", keep_manifest=True)
    store.left = 10
    put_folder(store, folder, "checkpoints/step-1")
    assert folders_in(store.sizes(), "checkpoints") == ["step-1"]


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_an_earlier_folder_of_the_name_is_never_mixed_with_the_new_one(store, folder, tmp_path, writes):
    put_folder(store, folder, "x")
    (folder / "a.bin").write_bytes(b"new")
    store.left = writes
    with pytest.raises(OSError, match="cut"):
        put_folder(store, folder, "x")
    assert folders_in(store.sizes(), "") == []


def test_a_damaged_file_in_the_store_leaves_the_local_folder_as_it_was(store, folder, tmp_path):
    put_folder(store, folder, "x")
    store.write("x/b.bin", b"B.bin" * 100)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "old").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"x/b\.bin: its sha256"):
        fetch_folder(store, "x", tmp_path / "back", keep_manifest=False)
    store.remove(["x/b.bin"])
    with pytest.raises(ValueError, match=r"x/b\.bin is missing"):
        fetch_folder(store, "x", tmp_path / "back", keep_manifest=False)
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["old"]


def test_a_folder_is_deleted_manifest_first(store, folder):
    put_folder(store, folder, "x")
    removed = []
    store.remove = removed.extend
    remove_folder(store, "x", store.sizes())
    assert removed == ["x/MANIFEST.json", "x/a.bin", "x/b.bin"]


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "MANIFEST.json", "/etc/passwd", ""])
def test_a_manifest_cannot_name_files_elsewhere(name):
    content = json.dumps({"schema_version": 1, "files": [{"name": name, "bytes": 1, "sha256": "0" * 64}]})
    with pytest.raises(ValueError, match="the manifest"):
        parse_manifest(content.encode(), "the manifest")


@few_and_many
def test_a_manifest_changed_at_random(folder, tmp_path, rounds):
    store = Store(tmp_path / "store")
    put_folder(store, folder, "x")

    def read():
        try:
            fetch_folder(store, "x", tmp_path / "back", keep_manifest=True)
        except FileNotFoundError as error:
            raise ValueError(f"MANIFEST.json: {error}") from error

    refusals(tmp_path / "store" / "x" / "MANIFEST.json", read, rounds, named="x", least=0.1)
