"""Loading of a checkpoint's tokenizer and configuration, from a directory or the hub."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerBase

from pretraining.checkpoints.series import SERIES_NAME, read_series
from pretraining.model.attention import faster_attention
from pretraining.model.dropout import with_dropout
from pretraining.model.families import family_of
from pretraining.model.source.checkpoint import check_checkpoint
from pretraining.model.source.config import no_model, source_config
from pretraining.model.source.tokenizer import require_embeddings
from runtime.hub import hub_is_reachable, is_missing_path
from runtime.model_places import model_place
from shards.tokenization.tokenizer_source import open_tokenizer

DEFAULT_RUN = Path("runs/pretrain")  # where launch/pretrain.py writes by default


def load_tokenizer(
    model_name_or_path: str, *, config: PretrainedConfig | None = None, option: str = "--model_name_or_path"
) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a checkpoint; recipes need offsets, which slow ones do not give.

    `config` is the checkpoint's, where it was read before. Raises ValueError, naming the `option`, where it has no
    tokenizer, a broken one, or one with more tokens than embeddings.
    """
    tokenizer = from_source(lambda name, only: open_tokenizer(name, option=option), model_name_or_path, option)
    require_embeddings(tokenizer, config or load_config(model_name_or_path, option=option), model_name_or_path)
    return tokenizer


def check_encoder(
    name: str, *, from_scratch: bool = False, option: str = "--model_name_or_path"
) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    """Configuration and tokenizer of a checkpoint that recipes can start from; its weights are checked, not loaded.

    Raises ValueError, naming the `option` or the file, as `load_config`, `load_tokenizer` and, unless only the shape
    is taken (`from_scratch`), for weights that do not fill the encoder.
    """
    config = load_config(name, option=option)
    tokenizer = load_tokenizer(name, config=config, option=option)

    def check(place: str, only: bool) -> None:
        check_checkpoint(place, config, AutoModel, local_files_only=only, weights=not from_scratch)

    from_source(check, name, option)
    return config, tokenizer


def load_config(
    model_name_or_path: str, *, dropout: float | None = None, option: str = "--model_name_or_path"
) -> PretrainedConfig:
    """The configuration, with every dropout rate replaced by `dropout` when it is given.

    Raises ValueError, naming the `option` that the name came from, when there is no such model or it is not an encoder
    that recipes can use.
    """
    config = from_source(lambda name, only: source_config(name, local_files_only=only), model_name_or_path, option)
    require_encoder(config, f"{option} {model_name_or_path}")
    return with_dropout(config, dropout, head=True)


def require_encoder(config: PretrainedConfig, source: str) -> None:
    """ValueError, naming `source`, for an encoder-decoder, and for a family whose scores would depend on the batch."""
    remedy = "use an encoder such as BERT, RoBERTa, DeBERTa or ModernBERT"
    if config.is_encoder_decoder or type(config) not in AutoModel._model_mapping:
        raise ValueError(f"{source}: {config.model_type} is not an encoder alone; {remedy}")
    if family_of(config).sees_padding:
        raise ValueError(
            f"{source}: the outputs of {config.model_type} for a text depend on the padding after it, and so its score "
            f"would depend on the rows of a batch; {remedy}"
        )


def attention_of(config: PretrainedConfig, *, bf16: bool = False, device_type: str = "cuda", length: int = 512) -> str:
    """The fastest by the measured table where the family has torch's fused attention, else the family's own."""
    if not getattr(AutoModel._model_mapping[type(config)], "_supports_sdpa", False):
        return "eager"
    return faster_attention(config, bf16=bf16, device_type=device_type, length=length)


def default_model(run: Path = DEFAULT_RUN) -> str:
    """The checkpoint with the largest budget of the default pretraining run, annealed before raw.

    Raises ValueError, naming the command, when no checkpoint exists, and as `read_series`.
    """
    series = run / SERIES_NAME
    if not series.is_file():
        raise ValueError(
            f"no checkpoint to start from: {series} is missing. Make one with `python launch/pretrain.py`, "
            "or name one with --model_name_or_path"
        )
    rows = read_series(series)
    if not rows:
        raise ValueError(f"{series} lists no checkpoint yet: let `python launch/pretrain.py` continue, or name a model")
    newest = max(rows, key=lambda row: (row["budget_tokens"], row["kind"] == "annealed"))
    return str(run / Path(newest["path"]).relative_to(run.resolve()))


def from_source(read: Callable[[str, bool], Any], name: str, option: str = "--model_name_or_path") -> Any:
    """Call `read` with the name and whether to stay offline; local directories come first, and what lies
    elsewhere is fetched into one (`model_place`).

    An unreachable hub becomes a clear message.
    """
    directory = Path(model_place(name, option)).expanduser()
    if directory.is_dir():
        if not (directory / "config.json").is_file():
            raise ValueError(f"{option} {directory} {no_model(directory)}")
        return read(str(directory), True)
    if is_missing_path(name) or directory.is_file():
        raise ValueError(f"{option} {name}: {no_model(directory)}")
    try:
        return read(name, not hub_is_reachable())
    except OSError as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{option} {name} is not a local directory, and the hub did not deliver it{offline}: {reason}. "
            "Give a directory, or a hub name while the hub can be reached"
        ) from error
