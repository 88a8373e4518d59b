"""The weight files of a checkpoint that somebody else saved: safetensors in its folder, read as names and shapes."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import transformers
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from runtime.files.foreign import read_foreign_object, reading_foreign, refuse_pointer
from runtime.files.whole_files import sha256_of

SHARD_NAME = re.compile(r"[^/\\\0]{1,200}\.safetensors")
# What `transformers` writes for a distributed model, and reads first, by other code.
DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
TRAINABLE = ("F64", "F32", "F16", "BF16")
TokenizerPart = Literal["none", "json", "all"]  # what a digest has of a tokenizer
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")


def weight_files(folder: Path) -> list[Path]:
    """The files that `transformers` would load, found without loading any.

    Raises ValueError where there are none, and for an index that is broken or names anything but a plain
    `*.safetensors` file inside the folder.
    """
    there = sorted(path.name for path in folder.iterdir())
    if any(DISTRIBUTED.fullmatch(name) for name in there):
        raise ValueError(f"{folder} holds the shards of a distributed model: gather them with save_pretrained first")
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return [folder / SAFE_WEIGHTS_NAME]
    if (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        return [_shard(folder, name) for name in shard_names(folder / SAFE_WEIGHTS_INDEX_NAME)]
    if pickled := [name for name in PICKLED if name in there]:
        raise ValueError(
            f"{folder} has {pickled[0]} and no {SAFE_WEIGHTS_NAME}: pickled weights can run code and are not read; "
            f"convert it yourself if you trust it: {conversion(folder)}"
        )
    if "adapter_config.json" in there:
        raise ValueError(f"{folder} holds an adapter, not a model: merge it (merge_and_unload) and save the model")
    others = [name for name in there if name.endswith(".safetensors")]
    instead = f"; it has {', '.join(others[:3])}" if others else ""
    raise ValueError(f"{folder} has no {SAFE_WEIGHTS_NAME}{instead}: name a directory that save_pretrained wrote")


def conversion(folder: Path) -> str:
    """The command with which a user makes safetensors of pickled weights, for a shell; nothing here runs it."""
    named = read_foreign_object(folder / "config.json").get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    known = isinstance(first, str) and first.isidentifier() and hasattr(transformers, first)
    name = first if known else "AutoModel"  # another class would add a random head, or drop a trained one
    place = repr(str(folder))
    program = (
        f"from transformers import {name} as M; M.from_pretrained({place}).save_pretrained({place}, "
        "safe_serialization=True)"
    )
    return f'python -c "{program}"' if not set(program) & set('"$`\\!') else f"python -c {shlex.quote(program)}"


def hub_weight_files(source: str, *, local_files_only: bool) -> list[Path]:
    """The same for a hub name, downloaded where that is allowed; empty where only the hub itself knows."""
    shards: list[Path] = []
    for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME):
        path = cached_file(source, name, local_files_only=local_files_only, _raise_exceptions_for_missing_entries=False)
        if path is None:
            continue
        if name == SAFE_WEIGHTS_NAME:
            return [Path(path)]
        folder = Path(path).parent
        shards = [folder / shard for shard in shard_names(Path(path))]
    return [_shard(path.parent, path.name) for path in shards] if all(path.exists() for path in shards) else []


def shard_names(index: Path) -> list[str]:
    """The files that an index names, each once; ValueError where one is not a plain `*.safetensors` name."""
    mapping = read_foreign_object(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise ValueError(f"{index} has no weight_map from tensors to files: copy or download it again")
    names = list(mapping.values())
    for name in names:
        if not isinstance(name, str) or not SHARD_NAME.fullmatch(name):
            raise ValueError(
                f"{index} names {str(name)[:80]!r}: only safetensors files inside its folder are read, by plain names "
                "such as model-00001-of-00002.safetensors"
            )
    return sorted(set(names))


def checkpoint_digest(folder: Path, tokenizer: TokenizerPart = "none") -> str:
    """sha256 over the configuration and the weights of a checkpoint's folder, and over files of its tokenizer.

    The one digest by which runs ("none": their rows are hashed), cells ("json": tokenizer.json) and sweeps ("all":
    every file of TOKENIZER_FILES, over the first form) recognise a checkpoint; its path and name do not count. Stored
    results are found by it: none of the three forms may change.
    """
    model = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    if tokenizer == "none":
        return _sha256(_listed(model))
    if tokenizer == "json":
        return _sha256(_listed([*model, folder / "tokenizer.json"]))
    files = {file for pattern in TOKENIZER_FILES for file in folder.glob(pattern)}
    return _sha256(f"{_sha256(_listed(model))}\n{_listed(sorted(files))}")


def _listed(files: Sequence[Path]) -> str:
    return "".join(f"{file.name}:{sha256_of(file)}\n" for file in files if file.is_file())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _shard(folder: Path, name: str) -> Path:
    path, inside = folder / name, folder.resolve()
    if not path.is_file():
        raise ValueError(f"{folder / SAFE_WEIGHTS_INDEX_NAME} names {name}, which is missing: download it as well")
    # The hub's cache links from models--X/snapshots/COMMIT to models--X/blobs.
    allowed = [inside, inside.parent.parent / "blobs"] if inside.parent.name == "snapshots" else [inside]
    if not any(path.resolve().is_relative_to(place) for place in allowed):
        raise ValueError(f"{path} is a link that leads outside its folder: copy the file itself there")
    return path


def stored_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape from the headers of the files.

    Raises ValueError, naming the file, for one that is cut short or not safetensors, and for weights of integers.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        refuse_pointer(file)
        with (
            reading_foreign(str(file), "it is cut short or not a safetensors file: copy or download it again"),
            safe_open(file, framework="pt") as opened,
        ):
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            shapes |= {name: tuple(tensor.get_shape()) for name, tensor in slices.items()}
            whole = [name for name, tensor in slices.items() if tensor.get_dtype() not in TRAINABLE]
        if whole := [name for name in whole if name.endswith((".weight", ".bias"))]:
            raise ValueError(
                f"{file} holds {whole[0][:120]} in a type other than {', '.join(TRAINABLE)}: quantized weights cannot "
                "be trained here; use the model's full precision weights"
            )
    return shapes
