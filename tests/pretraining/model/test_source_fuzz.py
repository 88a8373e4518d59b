"""A checkpoint's files, changed at random: a clear error or a whole model, in bounded time, and nothing else."""

import json
import random
import shutil
import time

import pytest
from safetensors.torch import load_file, save_file
from tiny_encoder import save_tiny_model

from finetuning.loop.encoder import check_encoder
from pretraining.model.configuration import configuration_from

FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors.index.json",
    "model-1.safetensors",
)
STRANGE = (None, [], {}, 0, -1, 10**12, 1.5, "x", "", True, [1], {"a": 1}, "../x", [[[[]]]], 1e308)
PIECES = (b"null", b"[", b"{", b"1e999", b"-1", b'"x"', b"NaN", b",", b"\x00", b"\xff", b"9" * 5000)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    save_tiny_model(folder, "bert", ["cat", "dog"])
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model-1.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "model-1.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    check_encoder(str(folder))
    return folder


def changed_value(value, generator):
    """The same with one part, anywhere in it, replaced by something strange."""
    if isinstance(value, dict) and value and generator.random() < 0.8:
        key = generator.choice(list(value))
        return {**value, key: changed_value(value[key], generator)}
    if isinstance(value, list) and value and generator.random() < 0.7:
        place = generator.randrange(len(value))
        return [*value[:place], changed_value(value[place], generator), *value[place + 1 :]]
    return generator.choice(STRANGE)


def changed_bytes(data, generator):
    """The same with bytes replaced, removed, added, or cut off."""
    data = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        place, kind = generator.randrange(len(data)), generator.randrange(4)
        if kind == 0:
            data[place] = generator.randrange(256)
        elif kind == 1:
            del data[place : place + generator.randint(1, 30)]
        elif kind == 2:
            data[place:place] = generator.choice(PIECES)
        else:
            del data[place + 1 :]
        data = data or bytearray(b"x")
    return bytes(data)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FILES)
def test_changed_files_are_refused_or_read(whole, tmp_path, name):
    generator, folder = random.Random(name), tmp_path / "model"
    shutil.copytree(whole, folder)
    data, longest, refusals = (whole / name).read_bytes(), 0.0, []
    for _ in range(1000):
        if name.endswith(".json") and generator.random() < 0.5:
            made = json.dumps(changed_value(json.loads(data), generator)).encode()
        else:
            made = changed_bytes(data, generator)
        (folder / name).write_bytes(made)
        started = time.monotonic()
        for read in (check_encoder, configuration_from):
            try:
                read(str(folder))
            except ValueError as error:
                refusals.append(str(error))
        longest = max(longest, time.monotonic() - started)
    assert len(refusals) > 200
    assert [text for text in refusals if str(folder) not in text or len(text) > 2000] == []
    assert longest < 30
