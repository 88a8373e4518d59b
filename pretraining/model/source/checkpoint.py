"""A checkpoint that is trained further must be what it seems: its encoder filled, its tokens within the embeddings.

Everything that starts from weights asks here before it reads any data: pretraining, every recipe, every cell of a gap.
A head (pooler, masked-language or classification head) may be missing: it is drawn from the seed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from pretraining.model.source.config import require_buildable
from pretraining.model.source.weights import hub_weight_files, stored_shapes, weight_files
from runtime.files.foreign import reading_foreign
from runtime.model_places import model_place

HEAD_PARAMETERS = 200_000_000  # more than any masked-language head: 250,000 tokens of width 768
REMEDY = "it must hold a config.json and a whole model.safetensors that belong together, as save_pretrained writes them"


def check_checkpoint(
    source: str, config: PreTrainedConfig, auto_class: Any, *, local_files_only: bool, weights: bool = True
) -> list[str]:
    """Refuse a checkpoint that does not fill the encoder of `config`, by the headers of its files: nothing is loaded.

    `auto_class` is the class that will load it (AutoModel, AutoModelForMaskedLM, BertForPreTraining); without
    `weights` only the configuration counts. Returns the names of the head's tensors that will be drawn from the seed.
    Raises ValueError with names, counts and remedy; a hub model that is not downloaded yet is not checked.
    """
    count = require_buildable(config, auto_class, source)
    if not weights:
        return []
    source = model_place(source)
    folder = Path(source).expanduser()
    files = weight_files(folder) if folder.is_dir() else hub_weight_files(source, local_files_only=local_files_only)
    if not files:
        return []
    shapes = stored_shapes(files)
    held = sum(math.prod(shape) for shape in shapes.values())
    if count > 2 * held + HEAD_PARAMETERS:  # what is missing takes memory below
        raise ValueError(
            f"{source} could not be read: config.json makes a model of {count:,} parameters, its weights are {held:,}; "
            f"{REMEDY}"
        )
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}  # views: no memory
    with _quiet(), torch.random.fork_rng(devices=[]):
        model, report = _load(auto_class, source, None, config, state_dict=state, attn_implementation="eager")
    return require_filled(model, report, source, shapes)


def load_checkpoint(
    source: str,
    config: PreTrainedConfig,
    auto_class: Any,
    *,
    local_files_only: bool,
    other_heads: bool = False,
    **loading: Any,
) -> tuple[PreTrainedModel, list[str]]:
    """Load weights from safetensors alone, in fp32: first checked by `check_checkpoint`, and then for finite values.

    `source` is a directory or hub name, `loading` goes to `from_pretrained`; with `other_heads` a head of other shapes
    (one for other classes) counts as missing. Returns the model and the names of the
    head's tensors that were drawn from torch's generator. Raises ValueError as `check_checkpoint` and for numbers that
    are not finite; OSError where the hub does not give it.
    """
    check_checkpoint(source, config, AutoModel if other_heads else auto_class, local_files_only=local_files_only)
    source = model_place(source)
    source = str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source
    loading |= {"local_files_only": local_files_only, "use_safetensors": True, "trust_remote_code": False}
    model, report = _load(auto_class, source, source, config, **loading)
    drawn = require_filled(model, report, source, other_heads=other_heads)
    bad = [name for name, tensor in model.named_parameters() if not torch.isfinite(tensor).all()]
    if bad:
        raise ValueError(
            f"{source} has weights that are not finite (NaN or infinite): {_few(bad)}; use a checkpoint from before "
            "its training failed"
        )
    return model, drawn


def require_filled(
    model: PreTrainedModel,
    report: Mapping[str, Any],
    source: str,
    stored: Collection[str] = (),
    *,
    other_heads: bool = False,
) -> list[str]:
    """Apply the rule to the loading report of `transformers`; the head's tensors that are missing.

    `stored` are the names in the file, where they are known.
    """
    needed, missing = encoder_names(model), set(report["missing_keys"])
    mismatched = sorted(report["mismatched_keys"])
    if other_heads:
        missing |= {entry[0] for entry in mismatched} - needed
        mismatched = [entry for entry in mismatched if entry[0] in needed]
    if mismatched:
        name, theirs, ours = mismatched[0][0], tuple(mismatched[0][1]), tuple(mismatched[0][2])
        raise ValueError(
            f"{source} could not be read: {len(mismatched)} of its tensors have other shapes than config.json says, "
            f"first {name} {list(theirs)} in place of {list(ours)}; {REMEDY}, and without --config_overrides that "
            "change the shapes"
        )
    absent = sorted(missing & needed)
    if absent:
        why = _why(model, absent, stored or report["unexpected_keys"])
        raise ValueError(
            f"{source} could not be read: it does not fill the encoder, {len(absent)} of whose {len(needed)} tensors "
            f"are missing ({_few(absent)}) and would be random; {why}"
        )
    return sorted(missing - needed)


def encoder_names(model: PreTrainedModel) -> set[str]:
    """Names of the state that a checkpoint must fill: embeddings, layers and norms, without heads and poolers."""
    names, base = set(model.state_dict()), model.base_model
    if base is not model:
        names = {name for name in names if name.startswith(f"{model.base_model_prefix}.")}
    return {name for name in names if "pooler" not in name.split(".")}


def _load(
    auto_class: Any, source: str, place: str | None, config: PreTrainedConfig, **loading: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model and transformers' report of what the weights did not fill, which it does not raise itself."""
    model_class = auto_class
    if not isinstance(auto_class, type) or not issubclass(auto_class, PreTrainedModel):
        model_class = auto_class._model_mapping[type(config)]
        model_class = model_class[0] if isinstance(model_class, tuple) else model_class
    loading |= {"output_loading_info": True, "ignore_mismatched_sizes": True, "dtype": torch.float32}
    with reading_foreign(source, REMEDY, from_hub=not Path(source).expanduser().exists()):
        model, report = model_class.from_pretrained(place, config=config, **loading)
    return model, report


def _why(model: PreTrainedModel, absent: list[str], names: Collection[str]) -> str:
    """What is wrong with the names in the file, as far as they say it."""
    own = f"{model.base_model_prefix}."
    prefixes: Counter[str] = Counter()
    for name in absent:
        tail = name.removeprefix(own) if model.base_model is not model else name
        prefixes.update({full_name.removesuffix(tail) for full_name in names if full_name.endswith(f".{tail}")})
    if prefixes and prefixes.most_common(1)[0][1] * 2 >= len(absent):
        prefix, number = prefixes.most_common(1)[0]
        return (
            f"its file has {number} of them under the prefix {prefix!r}, where {own!r} or none is expected: save the "
            "bare model with save_pretrained (of a wrapped one model.module or model._orig_mod), or rename the tensors"
        )
    held = f"its file holds {len(names)} tensors ({_few(sorted(names))})" if names else "its file holds no others"
    return f"{held}: use weights that belong to this config.json, as save_pretrained writes them"


def _few(names: list[str]) -> str:
    return ", ".join(name[:120] for name in names[:3]) + (", ..." if len(names) > 3 else "")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the table of names and the progress bar, which a check does not need."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
