"""The `transformers` configuration of the model to train: named size, file or checkpoint, plus overrides."""

import copy
import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoConfig, AutoModelForMaskedLM, PreTrainedConfig

from pretraining.model.families import family_of, model_class, usable_positions
from pretraining.model.sizes import size_settings
from pretraining.model.source.config import no_model, require_buildable, source_config
from pretraining.model.source.tokenizer import own_vocabulary_length, too_few_rows
from runtime.files.unique_keys import require_bounded
from runtime.hub import is_missing_path, local_files_only
from runtime.model_places import model_place
from shards.streaming.options import OBJECTIVES

LONGEST_SHOWN = 200  # characters
_AT_LEAST_ONE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def build_configuration(
    model: str | None = None,
    *,
    vocab_size: int,
    special_ids: Mapping[str, int],
    max_seq_length: int,
    from_config: str | None = None,
    model_name_or_path: str | None = None,
    config_overrides: str | Mapping[str, Any] | None = None,
    objective: str = "mlm",
) -> PreTrainedConfig:
    """The configuration of the model to train, fitted to the data; reads no weights.

    Exactly one of `model` (`bert-mini`), `from_config` (a `config.json`, its directory or a hub name) and
    `model_name_or_path`, whose weights must fit the data, is given. `special_ids` are the manifest's (pad, unk, cls,
    sep, mask). Raises ValueError with the remedy.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"--objective {objective!r} is not known: choose one of {', '.join(OBJECTIVES)}")
    named = [name for name in (model, from_config, model_name_or_path) if name]
    if len(named) != 1:
        raise ValueError(f"{named} given: name the model once, by --model, --from_config or --model_name_or_path")
    settings = parse_overrides(config_overrides)
    config = named_configuration(model, settings) if model else overridden(configuration_from(named[0]), settings)
    model_class(config, objective)  # refuses one without the heads
    data: dict[str, Any] = {"vocab_size": vocab_size, "special_ids": special_ids, "max_seq_length": max_seq_length}
    if model_name_or_path:
        check_fits_data(config, model_name_or_path, **data)
    else:
        fit_to_data(config, **data)
    return config


def parse_overrides(overrides: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """`"a=1,b=gelu"`, a JSON object as text or a mapping -> settings; a value is read as JSON where it is JSON."""
    if not overrides:
        return {}
    if isinstance(overrides, Mapping):
        return dict(overrides)
    if overrides.lstrip().startswith("{"):
        try:
            return dict(require_bounded(json.loads(overrides)))
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"--config_overrides {overrides[:LONGEST_SHOWN]!r} is not a JSON object ({error}): write "
                "'{\"hidden_size\": 128}', or hidden_size=128"
            ) from error
    settings: dict[str, Any] = {}
    for item in overrides.split(","):
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise ValueError(
                f"--config_overrides has {item!r}: every item must be key=value; write "
                "'num_hidden_layers=3,hidden_size=128', or a JSON object where a value is a list"
            )
        settings[key.strip()] = _value(value.strip())
    return settings


def _value(text: str) -> Any:
    try:
        return json.loads(text.lower() if text in ("True", "False", "None") else text)
    except (ValueError, RecursionError):
        return {"none": None}.get(text.lower(), text)


def named_configuration(name: str, settings: Mapping[str, Any]) -> PreTrainedConfig:
    """Configuration of a named size (`bert-mini`), with `settings` on top."""
    model_type, shape = size_settings(name)
    _check_keys(AutoConfig.for_model(model_type), settings)
    return _built(lambda: AutoConfig.for_model(model_type, **{**shape, **settings}), settings)


def overridden(config: PreTrainedConfig, settings: Mapping[str, Any]) -> PreTrainedConfig:
    """The same configuration with the user's `settings` on top; ValueError where no model can be built with them."""
    if not settings:
        return config
    _check_keys(config, settings)
    return _built(lambda: rederived(config, settings), settings)


def rederived(config: PreTrainedConfig, settings: Mapping[str, Any]) -> PreTrainedConfig:
    """The same configuration with `settings` on top, rebuilt so that what depends on them is derived again."""
    values = config.to_dict()
    if "num_hidden_layers" in settings and "layer_types" not in settings:
        values.pop("layer_types", None)
    return type(config).from_dict({**values, **settings})


def _built(make: Callable[[], PreTrainedConfig], settings: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration, if a model can be built from it (shapes only); else a ValueError that names the settings."""
    try:
        config = make()
        if settings and type(config) in MODEL_FOR_MASKED_LM_MAPPING:
            probe = copy.deepcopy(config)
            probe.vocab_size, probe.pad_token_id = 8, 0  # the data sets them: see `fit_to_data`
            with torch.device("meta"):
                AutoModelForMaskedLM.from_config(probe)
    except (StrictDataclassError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if not settings:
            raise
        given = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        reason = " ".join(str(error).split())
        raise ValueError(f"--config_overrides {given}: no model can be built with it ({reason}): correct it") from error
    return config


def _check_keys(config: PreTrainedConfig, settings: Mapping[str, Any]) -> None:
    names = set(config.to_dict()) | family_of(config).constructor_only
    for key in settings:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"--config_overrides sets {key!r}, which {config.model_type!r} does not have: the nearest is {near!r}"
            )
        if key in _AT_LEAST_ONE and isinstance(settings[key], int | float) and settings[key] < 1:
            raise ValueError(f"--config_overrides sets {key}={settings[key]}: use at least 1")


def configuration_from(source: str) -> PreTrainedConfig:
    """Configuration from a `config.json`, a directory that holds one, an address of one, or a hub name.

    Raises ValueError if it has no configuration, and for an architecture without a masked-language model.
    """
    only = True if Path(source).is_file() else bool(reading(source)["local_files_only"])
    try:
        config = source_config(source, local_files_only=only)
    except OSError as error:
        raise ValueError(unreadable(source, error)) from error
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise ValueError(
            f"{source} is of type {config.model_type!r}, which has no masked-language model in transformers: name an "
            "encoder, such as BERT or ModernBERT"
        )
    require_buildable(config, AutoModelForMaskedLM, source)
    return config


def unreadable(source: str, error: Exception) -> str:
    """The message about a configuration or weights that could not be read."""
    if Path(source).exists():
        reason = str(error).strip().splitlines()[0]
        return (
            f"{source} could not be read ({reason}): it must hold a config.json and a whole model.safetensors that "
            "belong together, as save_pretrained writes them; without --config_overrides that change its shapes"
        )
    return (
        f"{source!r} could not be read: it is not a local directory, and the hub did not deliver it (unreachable, "
        "unknown name, or no safetensors weights). Download it on a machine with network access (hf download "
        f"{source}) and give the directory"
    )


def reading(source: str) -> dict[str, Any]:
    """Arguments for `from_pretrained`: a directory is read without asking the hub; a path must exist. What lies at an
    address or in a branch of the hub is fetched first.

    Raises ValueError where `source` looks like a path and does not exist.
    """
    path = Path(model_place(source))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"{source} {no_model(path)}")
        return {"local_files_only": True, "trust_remote_code": False}
    if is_missing_path(source):
        raise ValueError(f"{source}: {no_model(path)}, or give a hub name")
    return {"local_files_only": local_files_only(source), "trust_remote_code": False}


def fit_to_data(
    config: PreTrainedConfig,
    *,
    vocab_size: int,
    special_ids: Mapping[str, int],
    max_seq_length: int,
) -> None:
    """Set vocabulary, special ids and positions of a configuration for new weights, in place.

    Published lengths (512, 8192) stay where they are long enough, so that a checkpoint can be fine-tuned on longer
    text than it was trained on.
    """
    config.vocab_size = vocab_size
    names = {"pad": "pad", "cls": "cls", "sep": "sep", "bos": "cls", "eos": "sep"}
    for name, ours in names.items():
        if name == "pad" or getattr(config, f"{name}_token_id", None) is not None:
            setattr(config, f"{name}_token_id", special_ids[ours])
    positions = getattr(config, "max_position_embeddings", None)
    needed = max_seq_length + family_of(config).position_offset(config)
    if positions is not None and positions < needed:
        config.max_position_embeddings = needed


def check_fits_data(
    config: PreTrainedConfig, source: str, *, vocab_size: int, special_ids: Mapping[str, int], max_seq_length: int
) -> None:
    """Refuse trained weights that cannot read the shards: vocabulary too small, another pad id, too few positions."""
    if config.vocab_size < vocab_size:
        if (own := own_vocabulary_length(source)) is not None and own > config.vocab_size:
            raise ValueError(too_few_rows(source, own, config.vocab_size))
        raise ValueError(
            f"{source} has {config.vocab_size} tokens, the shards' tokenizer {vocab_size}: "
            f"build the shards with that model's tokenizer (--tokenizer {source})"
        )
    pad = getattr(config, "pad_token_id", None)
    if pad is not None and pad != special_ids["pad"]:
        raise ValueError(
            f"{source} pads with id {pad}, the shards' tokenizer with {special_ids['pad']}: the two are not the same "
            f"tokenizer; build the shards with --tokenizer {source}"
        )
    positions = usable_positions(config)
    if positions is not None and positions < max_seq_length:
        raise ValueError(
            f"{source} has {positions} positions, fewer than --max_seq_length {max_seq_length}: lower --max_seq_length"
        )
