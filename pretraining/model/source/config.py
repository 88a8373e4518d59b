"""A `config.json` that somebody else wrote: read in bounded time, ignoring settings it must not control."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import cached_file

from runtime.files.foreign import read_foreign_object, reading_foreign
from runtime.files.schemas import listed
from runtime.model_places import model_place

# Keys that size a model by family, and the largest value that is believed: building more takes forever, even as shapes.
_MOST_LAYERS, _MOST_HEADS, _WIDEST, _MOST_ROWS = 1_000, 100_000, 1_000_000, 100_000_000
SIZES = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "n_layer", "num_hidden_groups"), _MOST_LAYERS),
    **dict.fromkeys(("inner_group_num", "encoder_layers", "decoder_layers", "num_decoder_layers"), _MOST_LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_heads", "num_key_value_heads"), _MOST_HEADS),
    **dict.fromkeys(("hidden_size", "dim", "d_model", "n_embd", "emb_dim", "embedding_size", "head_dim"), _WIDEST),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "d_ff", "d_inner", "num_labels"), _WIDEST),
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "n_positions"), _MOST_ROWS),
}
MOST_PARAMETERS = 100_000_000_000
# What a stranger's file must not choose: which file, kernel or fusion of layers is loaded.
NOT_THEIRS = ("transformers_weights", "fusion_config", "kernel_config")
REMEDY = "correct it, or download the model again"


def source_config(source: str, *, local_files_only: bool) -> PreTrainedConfig:
    """The configuration of a directory, a `config.json`, a hub name, or a model elsewhere (`model_place`).

    Raises ValueError, naming the file, for an invalid one and for sizes that no model has; OSError where the hub does
    not give it.
    """
    source = model_place(source)
    path = Path(source).expanduser()
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        file = _hub_file(source, local_files_only)
    check_content(read_foreign_object(file), file)
    place = str(path) if path.exists() else source
    with reading_foreign(str(file), REMEDY, from_hub=not path.exists()):
        config = AutoConfig.from_pretrained(place, local_files_only=local_files_only, trust_remote_code=False)
        config._attn_implementation = None  # "somebody/kernel" would be fetched from the hub, and run
        config._experts_implementation = None
        for name in NOT_THEIRS:
            if hasattr(config, name):
                delattr(config, name)
    return config


def no_model(path: Path) -> str:
    """Why there is no model at a path, and the models that are in it or beside it, for an error that begins with it."""
    if path.is_dir():
        below = models_below(path)
        where = f"model in it: {below}" if below else "`transformers` checkpoint directory"
        return f"has no config.json: name a {where}"
    what = "is a file, not the directory of a model" if path.exists() else "no such directory; check the path"
    below = models_below(path.parent)
    return what + (f"; the models in {path.parent} are {below}" if below else "")


def models_below(directory: Path) -> str:
    """The folders with a configuration up to two levels below a directory, as a list for a message; may be empty."""
    found = [file.parent for pattern in ("*/config.json", "*/*/config.json") for file in directory.glob(pattern)]
    names = [place.relative_to(directory).as_posix() for place in found]
    shown = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    return listed(sorted(shown, key=lambda name: ([int(digits[:20]) for digits in re.findall("[0-9]+", name)], name)))


def hub_commit(name: str, *, local_files_only: bool) -> str:
    """The commit of a hub model, which its folder in the cache is named by; OSError where the hub does not give it."""
    return _hub_file(name, local_files_only).parent.name


def _hub_file(name: str, local_files_only: bool) -> Path:
    return Path(str(cached_file(name, "config.json", local_files_only=local_files_only)))


def check_content(content: dict[str, Any], file: Path) -> None:
    """ValueError where the sizes, the dtype or the quantization in a configuration cannot be trained with."""
    if content.get("quantization_config"):
        raise ValueError(
            f"{file} has a quantization_config, and quantized weights cannot be trained here: use the model's full "
            "precision weights (model.dequantize(), then save_pretrained)"
        )
    if content.get("configuration_files"):
        raise ValueError(f"{file} names other configurations (configuration_files): copy the right one in its place")
    for inner in (content, *(value for value in content.values() if isinstance(value, dict))):
        for name, most in SIZES.items():
            value = inner.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise ValueError(f"{file} has {name} {_short(value)}: a whole number from 1 to {most:,}; {REMEDY}")
        for name in ("dtype", "torch_dtype"):
            value = inner.get(name)
            if isinstance(value, dict) or value in (None, "auto"):
                continue
            kind = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else None
            if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
                raise ValueError(f"{file} has {name} {_short(value)}: use float32, bfloat16 or float16; {REMEDY}")


def require_buildable(config: PreTrainedConfig, auto_class: Any, source: str) -> int:
    """Parameters of the model; ValueError where none can be built (shapes only), or one too large for any machine."""
    probe = copy.deepcopy(config)  # building writes its attention into it
    remedy = f"no model can be built from it; {REMEDY}"
    with reading_foreign(f"the configuration of {source}", remedy), torch.device("meta"):
        if hasattr(auto_class, "from_config"):
            model: nn.Module = auto_class.from_config(probe, attn_implementation="eager")
        else:
            model = auto_class._from_config(probe, attn_implementation="eager")
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MOST_PARAMETERS:
        raise ValueError(f"the configuration of {source} makes a model of {count:,} parameters; {REMEDY}")
    return count


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]} ..."
