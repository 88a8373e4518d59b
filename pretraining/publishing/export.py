"""Export of a model as a verified `transformers` directory (safetensors, tokenizer, configuration).

A directory gets its name only when it is complete and, where the live model's logits are given, when the model read
back from it gives the same.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForMaskedLM, BertForPreTraining, PreTrainedConfig, PreTrainedModel

from pretraining.model.families import shape_only, takes_token_types, usable_positions
from runtime.files.foreign import read_foreign_object
from runtime.files.whole_files import whole_directory
from runtime.processes.failures import Failed

WEIGHTS_NAME, CARD_NAME = "model.safetensors", "README.md"
# Largest difference of a logit from the live model's, as a share of the largest logit (or of 1 where all are smaller).
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
PROOF_SEQUENCES, PROOF_TOKENS = 8, 4096  # at most: the proof runs on the CPU, over whole vocabularies


class ExportError(Failed):
    """An export that does not give the live model's logits; nothing was left under its name."""


def export_model(
    transformer: PreTrainedModel,
    weights: Mapping[str, Tensor],
    directory: Path | str,
    tokenizer: Mapping[str, bytes] | None = None,
    *,
    live_logits: Tensor | None = None,
    example_batch: Mapping[str, Tensor | None] | None = None,
    card: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> float | None:
    """Write `weights`, full fp32 tensors by their names in `transformer`, as `directory`; for one rank to call.

    `transformer` gives class, configuration and buffers; its own weights may be sharded away. `settings` replace those
    of its configuration. `tokenizer` are the files that go next to the model (`tokenizer_files`), except names that it
    has itself. With `live_logits` [S, K, V] at the mask positions of `example_batch` the export is proven before it
    gets its name (see `prove_export`), and the largest difference is returned. `card` is the text of its README.md.
    Replaces what was there before. Raises ValueError for weights that are not the model's, ExportError when the proof
    fails.
    """
    directory = Path(directory)
    difference = None
    with whole_directory(directory) as temporary:
        _write_model(transformer, weights, temporary, settings or {})
        for name, content in (tokenizer or {}).items():
            if not (temporary / name).exists():
                (temporary / name).write_bytes(content)
        if tokenizer:
            fit_tokenizer(temporary, transformer.config)
        if card is not None:
            (temporary / CARD_NAME).write_text(card, encoding="utf-8")
        if live_logits is not None and example_batch is not None:
            difference = prove_export(temporary, live_logits, example_batch)
    return difference


def _write_model(
    transformer: PreTrainedModel, weights: Mapping[str, Tensor], directory: Path, settings: Mapping[str, Any]
) -> None:
    next_sentence = isinstance(transformer, BertForPreTraining)
    skeleton = shape_only(transformer.config, next_sentence=next_sentence)
    shapes = {name: parameter.shape for name, parameter in skeleton.named_parameters()}
    wrong = sorted(set(shapes) ^ set(weights)) or [
        name for name, shape in shapes.items() if weights[name].shape != shape
    ]
    if wrong:
        raise ValueError(f"weights to export are missing, unknown or of another shape: {', '.join(wrong[:5])}")
    narrow = sorted(name for name, tensor in weights.items() if tensor.dtype != torch.float32)
    if narrow:
        raise ValueError(f"{narrow[0]} is {weights[narrow[0]].dtype}: export the fp32 masters")
    buffers = dict(transformer.named_buffers())
    kept = {name: buffers[name].detach().cpu() for name in transformer.state_dict() if name in buffers}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file({**tensors, **kept}, directory / WEIGHTS_NAME, metadata={"format": "pt"})
    config = copy.deepcopy(transformer.config)
    config.architectures = [type(skeleton).__name__]
    config.dtype = "float32"
    for name, value in settings.items():
        setattr(config, name, value)
    config.save_pretrained(directory)


def tokenizer_files(directory: Path) -> dict[str, bytes]:
    """The files of a tokenizer's folder by name, for all exports of a run; ValueError where there are none."""
    files = {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}
    if not files:
        raise ValueError(
            f"{directory} holds no tokenizer files: name the tokenizer/ folder next to the shards' manifest"
        )
    return files


def fit_tokenizer(directory: Path, config: PreTrainedConfig) -> None:
    """Set the saved tokenizer's limits to the model's: maximum length, and token types only if it has two or more."""
    file = directory / "tokenizer_config.json"
    settings = read_foreign_object(file) if file.is_file() else {}
    positions, stored = usable_positions(config), settings.get("model_max_length")
    if positions is not None and not (isinstance(stored, int) and 0 < stored <= positions):
        settings["model_max_length"] = positions
    types = ["token_type_ids"] if getattr(config, "type_vocab_size", 0) > 1 else []
    settings["model_input_names"] = ["input_ids", *types, "attention_mask"]  # transformers 5 gives no types unasked
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_exported(directory: Path | str) -> PreTrainedModel:
    """Read an export back as a user would: fp32, from safetensors only, with the heads it was trained with."""
    architectures = read_foreign_object(Path(directory) / "config.json")["architectures"]
    reader: Any = BertForPreTraining if architectures == ["BertForPreTraining"] else AutoModelForMaskedLM
    model, report = reader.from_pretrained(
        str(directory), local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    lost = sorted([*report["missing_keys"], *report["unexpected_keys"]])
    if lost:
        raise ExportError(f"{directory} cannot be read back completely: {', '.join(lost[:5])}")
    return model.eval()


def prove_export(directory: Path | str, live_logits: Tensor, example_batch: Mapping[str, Tensor | None]) -> float:
    """Compare the exported model's logits with the live model's; the largest difference, relative to the largest logit.

    `live_logits` [S, K, V] come from the live model in evaluation mode (`with_logits=True`) on `example_batch`, which
    holds `input_ids`, `mask_positions` and what else the model takes. The exported model runs as `transformers` runs
    it, over all positions of the first few sequences. Live logits of bf16 are allowed bf16's rounding. Raises
    ExportError with the numbers.
    """
    model = load_exported(directory)
    batch = {name: tensor.cpu() for name, tensor in example_batch.items() if tensor is not None}
    number = max(1, min(PROOF_SEQUENCES, PROOF_TOKENS // batch["input_ids"].shape[1]))
    batch, live_logits = {name: tensor[:number] for name, tensor in batch.items()}, live_logits[:number]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
    if not takes_token_types(model):
        inputs.pop("token_type_ids", None)
    with torch.no_grad():
        output = model(**inputs)
    logits = output.prediction_logits if isinstance(model, BertForPreTraining) else output.logits
    positions = batch["mask_positions"].unsqueeze(-1).expand(-1, -1, logits.shape[-1])
    exported, live = logits.gather(1, positions), live_logits.detach().cpu().float()
    if exported.shape != live.shape:
        raise ExportError(f"exported logits have shape {tuple(exported.shape)}, the live model's {tuple(live.shape)}")
    scale = max(1.0, live.abs().max().item())
    difference = (exported - live).abs().max().item() / scale
    tolerance = TOLERANCES[live_logits.dtype]
    if not difference <= tolerance:  # so that a NaN fails
        raise ExportError(
            f"{directory} does not give the live model's logits: the largest difference is {difference:.3g} of the "
            f"largest logit ({scale:.3g}), allowed is {tolerance:g} for {live_logits.dtype}"
        )
    return difference
