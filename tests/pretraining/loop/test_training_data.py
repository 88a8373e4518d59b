"""Where a run's shards come from."""

from pretraining.loop import training_data
from pretraining.loop.training_data import build_small_world, prepare_shards
from pretraining.plan.options import PretrainingOptions
from runtime.processes.ranks import Ranks
from shards.storage.manifest import read_manifest


def test_an_address_keeps_its_slashes():
    address = "https://example.org/shards/"
    assert prepare_shards(PretrainingOptions(shards=address), Ranks()) == address


def test_without_shards_the_small_world_is_built_where_one_stands(tmp_path, monkeypatch):
    built = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training_data, "build_small_world", built.append)
    assert prepare_shards(PretrainingOptions(), Ranks()) == "runs/small_world/shards"
    assert [str(path) for path in built] == ["runs/small_world"]
    # Only the main rank builds.
    prepare_shards(PretrainingOptions(), Ranks(1, 1, 2, 2))
    assert len(built) == 1


def test_what_was_built_is_not_built_again(tiny_small_world):
    shards = build_small_world(tiny_small_world)
    before = {path: path.stat().st_mtime_ns for path in shards.iterdir() if path.suffix in (".tar", ".json")}
    assert before
    assert build_small_world(tiny_small_world) == shards
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert read_manifest(shards).split("train").tokens > 0
