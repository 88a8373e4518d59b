"""A checkpoint's files, changed at random: a clear error or a whole model, in bounded time and memory."""

import json
import shutil

import pytest
from file_mutations import few_and_many, refusals
from safetensors.torch import load_file, save_file
from tiny_encoder import save_tiny_model
from transformers import BertTokenizerFast

from finetuning.model.checkpoint_files import check_encoder
from pretraining.model.configuration import configuration_from

SHARDED = ("model.safetensors.index.json", "model-1.safetensors")
WORDS = ("vocab.txt", "special_tokens_map.json", "added_tokens.json")
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", *SHARDED, *WORDS)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model as it is saved today, one of several weight files, and one with the tokenizer files of earlier days."""
    whole, sharded, words = (tmp_path_factory.mktemp(name) for name in ("whole", "sharded", "words"))
    save_tiny_model(whole, "bert", ["cat", "dog"])
    for folder in (sharded, words):
        shutil.copytree(whole, folder, dirs_exist_ok=True)
    tensors = load_file(sharded / "model.safetensors")
    (sharded / "model.safetensors").unlink()
    save_file(tensors, sharded / "model-1.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "model-1.safetensors")}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    vocabulary = json.loads((words / "tokenizer.json").read_text())["model"]["vocab"]
    (words / "tokenizer.json").unlink()
    (words / "vocab.txt").write_text("".join(f"{word}\n" for word in sorted(vocabulary, key=vocabulary.__getitem__)))
    (words / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": BertTokenizerFast.__name__}))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    (words / "special_tokens_map.json").write_text(json.dumps(names, indent=1))
    (words / "added_tokens.json").write_text(json.dumps({"cat": vocabulary["cat"]}))
    return {**dict.fromkeys(FILES, whole), **dict.fromkeys(SHARDED, sharded), **dict.fromkeys(WORDS, words)}


@few_and_many
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", FILES)
def test_changed_files_are_refused_or_read(models, tmp_path, name, rounds):
    folder = tmp_path / "model"
    shutil.copytree(models[name], folder)

    def read():
        configuration_from(str(folder))
        check_encoder(str(folder))

    few = name in ("added_tokens.json", "special_tokens_map.json", "vocab.txt")  # lists of words may be any lists
    refusals(folder / name, read, rounds, named=str(folder), least=0.05 if few else 0.2, longest=2000)
