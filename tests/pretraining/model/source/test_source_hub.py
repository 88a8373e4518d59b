"""A model of the hub, from its cache: the same checks as for a directory, though its files are links to blobs."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from tiny_encoder import save_tiny_model

from finetuning.model.checkpoint_files import check_encoder
from finetuning.model.heads import SPANS, Head, load_headed
from gap.cells.job_list import model_digest
from pretraining.model.configuration import configuration_from
from pretraining.model.masked_lm import check_weights

HEAD = Head(SPANS, 2)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "somebody/model"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("runtime.hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(cache, damage=lambda folder: None):
    """A tiny model in the layout of the cache; returns its snapshot."""
    folder = cache.parent / "model"
    save_tiny_model(folder, "bert", ["cat", "dog"])
    damage(folder)
    root = cache / f"models--{NAME.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for place in (root / "blobs", root / "refs", snapshot):
        place.mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copy(file, root / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    return snapshot


def halve(folder):
    kept = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "layer.0" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def shard(folder, name="model-00001-of-00001.safetensors"):
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def without_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.filterwarnings("ignore:.*start at random")
@pytest.mark.parametrize("damage", [lambda folder: None, shard], ids=["one file", "shards"])
def test_a_whole_model_is_taken_by_name_and_by_its_snapshot(cache, damage):
    snapshot = put(cache, damage)
    for source in (NAME, str(snapshot)):
        check_encoder(source)
        load_headed(source, HEAD)
        check_weights(configuration_from(source), source, "mlm")
    assert model_digest(NAME) == f"{NAME}@{COMMIT}"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (halve, "does not fill the encoder"),
        (without_tokenizer, "has no tokenizer files"),
        (lambda folder: shard(folder, "pytorch_model.bin"), "names 'pytorch_model.bin'"),
        (lambda folder: shard(folder, "../../../other.safetensors"), "only safetensors files inside its folder"),
        (lambda folder: (folder / "config.json").write_text("["), "config.json could not be read as JSON"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "model.safetensors could not be read"),
    ],
    ids=["half", "no tokenizer", "pickle", "outside", "config", "weights"],
)
def test_what_a_directory_is_refused_for_a_name_is_too(cache, damage, complaint):
    snapshot = put(cache, damage)
    for source in (NAME, str(snapshot)):
        with pytest.raises(ValueError, match=complaint):
            check_encoder(source)
