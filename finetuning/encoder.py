"""The encoder under every recipe: a checkpoint, any `transformers` model, or its shape with random weights."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerBase

from pretraining.source_checkpoint import check_checkpoint, load_checkpoint
from pretraining.source_config import require_buildable, source_config
from pretraining.source_tokenizer import require_embeddings
from shards.hub import hub_is_reachable, is_missing_path
from shards.tokenizer_source import open_tokenizer

DEFAULT_RUN = Path("runs/pretrain")  # where launch/pretrain.py writes when told nothing
HEAD_STD = 0.02  # of every new head, whatever the encoder and wherever its weights come from (Devlin et al. 2019)
# Their hidden states change with the padding of the batch (no mask, or landmarks, convolutions and hashes over it).
SEES_PADDING = ("canine", "convbert", "fnet", "nystromformer", "yoso")


class Encoder(nn.Module):
    """Token ids -> hidden states [B, T, D], for any family: what a family does not take is not passed on."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.config: PretrainedConfig = transformer.config
        takes = "token_type_ids" in inspect.signature(transformer.forward).parameters
        # RoBERTa and DeBERTa know one type or none, whatever a tokenizer of pairs gives.
        self.takes_token_types = takes and getattr(self.config, "type_vocab_size", 2) > 1

    @property
    def hidden_size(self) -> int:
        """Width D of the hidden states."""
        return int(self.config.hidden_size)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """input_ids, attention_mask, token_type_ids [B, T] -> [B, T, D]."""
        extra = {"token_type_ids": token_type_ids} if self.takes_token_types and token_type_ids is not None else {}
        return self.transformer(input_ids=input_ids, attention_mask=attention_mask, **extra).last_hidden_state


def initialise_head(head: nn.Module) -> nn.Module:
    """The one rule for new layers: normal weights of deviation 0.02, biases zero."""
    for module in head.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=HEAD_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return head


def head_dropout(config: PretrainedConfig) -> float:
    """The rate in front of a head: the family's classifier dropout, else its hidden dropout, else 0.1."""
    for name in ("classifier_dropout", "hidden_dropout_prob", "hidden_dropout"):
        rate = getattr(config, name, None)
        if rate is not None:
            return float(rate)
    return 0.1


def load_tokenizer(model_name_or_path: str, *, option: str = "--model_name_or_path") -> PreTrainedTokenizerBase:
    """The fast tokenizer of a checkpoint; recipes need offsets, which slow ones do not give.

    Raises ValueError, naming the `option`, where it has none, a broken one, or one with more tokens than embeddings.
    """
    tokenizer = _load(lambda name, only: open_tokenizer(name, option=option), model_name_or_path, option)
    require_embeddings(tokenizer, load_config(model_name_or_path, option=option), model_name_or_path)
    return tokenizer


def check_encoder(name: str, *, from_scratch: bool = False, option: str = "--model_name_or_path") -> None:
    """Refuse a checkpoint that recipes cannot start from, before any data is read: nothing is loaded.

    Raises ValueError, naming the `option` or the file, as `load_config`, `load_tokenizer` and, unless only the shape
    is taken (`from_scratch`), for weights that do not fill the encoder.
    """
    config = load_config(name, option=option)
    load_tokenizer(name, option=option)

    def check(place: str, only: bool) -> None:
        check_checkpoint(place, config, AutoModel, local_files_only=only, weights=not from_scratch)

    _load(check, name, option)


def require_dropout(rate: float | None) -> None:
    """ValueError for a rate outside [0, 1)."""
    if rate is not None and not 0 <= rate < 1:
        raise ValueError(f"--dropout {rate}: a rate lies in [0, 1); use 0.1")


def load_config(
    model_name_or_path: str, *, dropout: float | None = None, option: str = "--model_name_or_path"
) -> PretrainedConfig:
    """The configuration, with every dropout rate replaced by `dropout` when it is given.

    Raises ValueError, naming the `option` that the name came from, when there is no such model or it is no encoder that
    recipes can use.
    """
    config = _load(lambda name, only: source_config(name, local_files_only=only), model_name_or_path, option)
    require_encoder(config, f"{option} {model_name_or_path}")
    if dropout is not None:
        require_dropout(dropout)
        for name in list(config.to_dict()):
            if "dropout" in name and isinstance(getattr(config, name), (int, float, type(None))):
                setattr(config, name, dropout)
    return config


def require_encoder(config: PretrainedConfig, source: str) -> None:
    """ValueError, naming `source`, for an encoder-decoder, and for a family whose scores would depend on the batch."""
    remedy = "use an encoder such as BERT, RoBERTa, DeBERTa or ModernBERT"
    if config.is_encoder_decoder or type(config) not in AutoModel._model_mapping:
        raise ValueError(f"{source}: {config.model_type} is no encoder alone; {remedy}")
    if config.model_type in SEES_PADDING:
        raise ValueError(
            f"{source}: what {config.model_type} makes of a text depends on the padding behind it, and so would its "
            f"score on the rows of a batch; {remedy}"
        )


def load_encoder(
    model_name_or_path: str, *, from_scratch: bool = False, seed: int = 42, dropout: float | None = None
) -> Encoder:
    """Load weights (safetensors only, fp32), or draw random ones of the same shape from `seed`.

    Raises ValueError when the name is neither a directory nor to be had from the hub, and as `require_encoder`.
    """
    config = load_config(model_name_or_path, dropout=dropout)
    extra: dict[str, Any] = {"attn_implementation": attention_of(config)}
    if "add_pooling_layer" in inspect.signature(AutoModel._model_mapping[type(config)].__init__).parameters:
        extra["add_pooling_layer"] = False
    torch.manual_seed(seed)
    if from_scratch:
        require_buildable(config, AutoModel, model_name_or_path)
        transformer = AutoModel.from_config(config, **extra)
    else:
        transformer = _load(
            lambda name, only: load_checkpoint(name, config, AutoModel, local_files_only=only, **extra)[0],
            model_name_or_path,
        )
    return Encoder(transformer.float())


def attention_of(config: PretrainedConfig) -> str:
    """torch's fused attention where the family has it, else the family's own."""
    return "sdpa" if getattr(AutoModel._model_mapping[type(config)], "_supports_sdpa", False) else "eager"


def default_model(run: Path = DEFAULT_RUN) -> str:
    """The checkpoint with the largest budget of the default pretraining run, annealed before raw.

    Raises ValueError that names the command when there is none.
    """
    series = run / "series.json"
    if not series.is_file():
        raise ValueError(
            f"no checkpoint to start from: {series} is missing. Make one with `python launch/pretrain.py`, "
            "or name one with --model_name_or_path"
        )
    rows = json.loads(series.read_text(encoding="utf-8"))["checkpoints"]
    if not rows:
        raise ValueError(f"{series} lists no checkpoint yet: let `python launch/pretrain.py` go on, or name a model")
    newest = max(rows, key=lambda row: (row["budget_tokens"], row["kind"] == "annealed"))
    return str(run / newest["path"])


def _load(read: Callable[[str, bool], Any], name: str, option: str = "--model_name_or_path") -> Any:
    """What `read` makes of the name and of whether the network is left alone; local directories come first.

    An unreachable hub becomes a clear message.
    """
    directory = Path(name).expanduser()
    if directory.is_dir():
        if not (directory / "config.json").is_file():
            raise ValueError(f"{option} {directory} has no config.json: name a `transformers` checkpoint directory")
        return read(str(directory), True)
    if is_missing_path(name):
        raise ValueError(f"{option} {name}: no such directory; check the path")
    try:
        return read(name, not hub_is_reachable())
    except OSError as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{option} {name} is no local directory, and the hub did not give it{offline}: {reason}. "
            "Give a directory, or a hub name while the hub can be reached"
        ) from error
