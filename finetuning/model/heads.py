"""The model of a task: the `transformers` class with its head, or our own head where there is none.

`AutoModelForSequenceClassification`, `AutoModelForTokenClassification`, `AutoModelForQuestionAnswering` and
`AutoModelForMultipleChoice` are the default, so that a saved model loads there as it is. Poolings that a family's class
does not know (mean and max on BERT) keep working through `OwnHead`, which only `finetuning.load` reads back.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from finetuning.model.checkpoint_files import attention_of, from_source, load_config
from finetuning.model.names import POOLINGS
from pretraining.model.dropout import with_dropout
from pretraining.model.families import Family, family_of, takes_token_types
from pretraining.model.source.checkpoint import load_checkpoint
from pretraining.model.source.config import require_buildable
from runtime.files.foreign import reading_foreign
from runtime.files.schemas import listed
from runtime.model_places import model_place


def pool(hidden: torch.Tensor, attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """[B, T, D], [B, T] -> [B, D]: the first token, or the mean or maximum over the tokens that are not padding."""
    if pooling == "cls":
        return hidden[:, 0]
    keep = attention_mask.unsqueeze(-1).to(torch.bool)
    if pooling == "mean":
        return (hidden * keep).sum(dim=1) / keep.sum(dim=1).clamp(min=1)
    if pooling == "max":
        return hidden.masked_fill(~keep, torch.finfo(hidden.dtype).min).amax(dim=1)
    raise ValueError(f"pooling is {pooling!r}: it must be one of {', '.join(POOLINGS)}")


CLASSIFICATION, SPANS, CHOICE, TAGS = "classification", "qa", "multiple_choice", "token_classification"
AUTO_CLASSES: dict[str, Any] = {
    CLASSIFICATION: AutoModelForSequenceClassification,
    SPANS: AutoModelForQuestionAnswering,
    CHOICE: AutoModelForMultipleChoice,
    TAGS: AutoModelForTokenClassification,
}
PIPELINES = {  # the names that hubs know
    CLASSIFICATION: "text-classification",
    SPANS: "question-answering",
    CHOICE: "multiple-choice",
    TAGS: "token-classification",
}
HEAD_STD = 0.02  # of every new layer, for any encoder and any source of its weights (Devlin et al. 2019)
HEAD_WEIGHTS = "head.safetensors"
SHOWN_NAMES = 4


@dataclass(frozen=True)
class Head:
    """The head that a recipe needs.

    `num_outputs` is the number of classes or tags, 1 for a regression and for a choice, 2 (start and end) for spans.
    `pooling` and `dropout` None: the family's own. `own` asks for `OwnHead` even where `transformers` has a class.
    """

    task: str
    num_outputs: int
    labels: tuple[str, ...] = ()
    pooling: str | None = None
    dropout: float | None = None
    own: bool = False

    @property
    def problem_type(self) -> str | None:
        """The name of the loss in `transformers`; None where the task has only one."""
        if self.task != CLASSIFICATION:
            return None
        return "single_label_classification" if self.labels else "regression"

    def configured(self, config: PretrainedConfig) -> PretrainedConfig:
        """A copy of the configuration with num_labels, id2label, label2id, problem_type, pooling and dropout set."""
        config = copy.deepcopy(config)
        config.return_dict = True
        config.num_labels = self.num_outputs
        if self.labels:
            config.id2label = dict(enumerate(self.labels))
            config.label2id = {label: number for number, label in enumerate(self.labels)}
        config.problem_type = self.problem_type
        if self.pooling in ("cls", "mean") and hasattr(config, "classifier_pooling"):
            config.classifier_pooling = self.pooling
        if self.dropout is not None and not self.is_own(config):
            name = family_of(config).head_dropout
            if name == Family.head_dropout and not hasattr(config, name):
                raise ValueError(
                    f"--head_dropout {self.dropout}: the head of {config.model_type} has no dropout of its own; use "
                    "--dropout, which sets every rate of the model, or leave it out"
                )
            setattr(config, name, self.dropout)
        return config

    def field_class(self, config: PretrainedConfig) -> Any | None:
        """The class of `transformers` for the task and the family; None where it has none with this pooling."""
        if self.own or self.pooling not in (None, "cls", "mean"):
            return None
        if self.pooling == "mean" and not hasattr(config, "classifier_pooling"):
            return None
        return AUTO_CLASSES[self.task]._model_mapping.get(type(config), None)

    def is_own(self, config: PretrainedConfig) -> bool:
        """True where only this project can build the head."""
        return self.field_class(config) is None


class OwnHead(nn.Module):
    """An encoder with a pooling and a linear layer that `transformers` has no class for; called like such a class.

    For spans and tags every token gets its outputs and nothing is pooled; a choice has a hidden layer before its one
    output.
    """

    def __init__(self, encoder: PreTrainedModel, head: Head) -> None:
        super().__init__()
        self.encoder, self.task, self.pooling = encoder, head.task, head.pooling or "cls"
        self.config: PretrainedConfig = encoder.config
        self.takes_token_types = takes_token_types(encoder)
        width = int(self.config.hidden_size)
        rate = head_dropout(self.config) if head.dropout is None else head.dropout
        if head.task == CHOICE:
            self.head: nn.Module = nn.Sequential(
                nn.Linear(width, width), nn.Tanh(), nn.Dropout(rate), nn.Linear(width, 1)
            )
        else:
            self.head = nn.Linear(width, head.num_outputs)
        self.dropout = nn.Dropout(0.0 if head.task == CHOICE else rate)

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's token embeddings."""
        return self.encoder.get_input_embeddings()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> SimpleNamespace:
        """[B, T] each (choices: [B, C, T]) -> `logits` [B, C], tags [B, T, C]; spans: start_logits, end_logits."""
        shape = input_ids.shape[:-1]
        if self.task == CHOICE:
            input_ids, attention_mask = input_ids.flatten(0, 1), attention_mask.flatten(0, 1)
            token_type_ids = None if token_type_ids is None else token_type_ids.flatten(0, 1)
        types = {} if token_type_ids is None or not self.takes_token_types else {"token_type_ids": token_type_ids}
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        if self.task == SPANS:
            start, end = self.head(self.dropout(hidden)).unbind(-1)
            return SimpleNamespace(start_logits=start, end_logits=end)
        if self.task == TAGS:
            return SimpleNamespace(logits=self.head(self.dropout(hidden)))
        logits = self.head(self.dropout(pool(hidden, attention_mask, self.pooling)))
        return SimpleNamespace(logits=logits.view(shape) if self.task == CHOICE else logits)


class TaskModel(nn.Module):
    """The model that a recipe trains: `transformer` (a `transformers` class or `OwnHead`) and the recipe's outputs."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.takes_token_types = takes_token_types(transformer)

    @property
    def config(self) -> PretrainedConfig:
        """The configuration of the model, head included."""
        return self.transformer.config

    def outputs(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None
    ) -> Any:
        """The output of the `transformers` class; token types are passed only where the family has several."""
        types = {} if token_type_ids is None or not self.takes_token_types else {"token_type_ids": token_type_ids}
        return self.transformer(input_ids=input_ids, attention_mask=attention_mask, **types)


@dataclass
class Headed:
    """A model with its head, and the parameters that the checkpoint lacked: `draw` initialises them from a seed."""

    transformer: nn.Module
    drawn: tuple[str, ...]

    def draw(self, seed: int) -> nn.Module:
        """Normal weights of deviation 0.02 and zero biases in every drawn linear layer; returns the model.

        A layer depends on the seed and its name alone: it is the same on random and on pretrained weights.
        """
        modules = dict(self.transformer.named_modules())
        drawn = set(self.drawn)
        with torch.no_grad():
            for name, parameter in self.transformer.named_parameters():
                if name not in drawn or not isinstance(modules[name.rpartition(".")[0]], nn.Linear):
                    continue
                if parameter.dim() == 1:
                    parameter.zero_()
                else:
                    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
                    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
                    parameter.copy_(torch.empty(parameter.shape).normal_(std=HEAD_STD, generator=generator))
        return self.transformer

    def fresh(self, seed: int) -> nn.Module:
        """A copy with a head of its own."""
        return Headed(copy.deepcopy(self.transformer), self.drawn).draw(seed)

    def sentence(self, seed: int) -> str:
        """A line about the head, for the output of a run."""
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in self.drawn))
        shown = ", ".join(layers[:SHOWN_NAMES]) + (
            f" and {len(layers) - SHOWN_NAMES} more" * (len(layers) > SHOWN_NAMES)
        )
        if isinstance(self.transformer, OwnHead):
            what = "every token" if self.transformer.task in (SPANS, TAGS) else f"{self.transformer.pooling} pooling"
            kind = (
                f"a linear layer on {what} of {self.transformer.config.model_type}, for which plain `transformers` has "
                "no class: a saved model loads with `from finetuning import load`"
            )
        else:
            kind = type(self.transformer).__name__
        return f"head: {kind}; " + (f"drawn from seed {seed}: {shown}" if layers else "all of it from the checkpoint")


def load_headed(
    model_name_or_path: str,
    head: Head,
    *,
    from_scratch: bool = False,
    seed: int = 42,
    dropout: float | None = None,
    keep_head: bool = False,
    config: PretrainedConfig | None = None,
    attention: str | None = None,
) -> Headed:
    """Weights (safetensors only, fp32) or, from scratch, random ones of the same shape drawn from `seed`.

    Embeddings and layers come from the checkpoint; what it holds of the head (a pooler, ModernBERT's prediction head)
    does too, but the last layer only with `keep_head`, for a model that is only evaluated. The caller draws the rest.
    `config` is the checkpoint's, where it was read before; `attention` as `attention_of` gives it. Raises ValueError as
    `load_config` does, and for a
    checkpoint that does not fill embeddings and layers.
    """
    config = with_dropout(config or load_config(model_name_or_path), dropout, head=True)
    if from_scratch:
        return random_headed(config, head, seed=seed, source=model_name_or_path, attention=attention)
    config = head.configured(config)
    cls, arguments = head.field_class(config), {"attn_implementation": attention or attention_of(config)}
    torch.manual_seed(seed)
    if cls is None:
        encoder, _ = _read_weights(AutoModel, model_name_or_path, config, {**arguments, **_no_pooler(config)})
        own = OwnHead(encoder, head)
        filled = keep_head and fill_head(own, Path(model_place(model_name_or_path)).expanduser() / HEAD_WEIGHTS)
        return Headed(own, () if filled else tuple(head_names(own)))
    model, missing = _read_weights(cls, model_name_or_path, config, arguments)
    names = head_names(model)
    last = () if keep_head else output_layer(model, names)
    return Headed(model, tuple(name for name in names if name in missing or name.rpartition(".")[0] in last))


def random_headed(
    config: PretrainedConfig,
    head: Head,
    *,
    seed: int = 42,
    source: str = "the configuration",
    attention: str | None = None,
) -> Headed:
    """A model of this shape with random weights, drawn from `seed`; the caller draws the head.

    Raises ValueError, naming `source`, for a configuration that makes no model.
    """
    config = head.configured(config)
    cls, arguments = head.field_class(config), {"attn_implementation": attention or attention_of(config)}
    require_buildable(config, AutoModel, source)
    torch.manual_seed(seed)
    if cls is None:
        encoder = AutoModel.from_config(config, **arguments, **_no_pooler(config)).float()
        model: nn.Module = OwnHead(encoder, head)
    else:
        model = cls._from_config(config, dtype=torch.float32, **arguments).float()
    return Headed(model, tuple(head_names(model)))


def head_names(model: nn.Module) -> list[str]:
    """Names of the parameters outside the encoder, and of its pooler: those that only the task uses."""
    prefix = "encoder." if isinstance(model, OwnHead) else f"{model.base_model_prefix}."
    names = [name for name, _ in model.named_parameters()]
    return [name for name in names if not name.startswith(prefix) or is_pooler(name)]


def is_pooler(name: str) -> bool:
    """Whether a parameter belongs to the pooler (the layer on the first token), which counts as head."""
    return "pooler" in name.split(".")


def output_layer(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """The name of the head's last linear layer, whose outputs are the task's."""
    modules = dict(model.named_modules())
    layers = dict.fromkeys(name.rpartition(".")[0] for name in names)
    return tuple([layer for layer in layers if isinstance(modules[layer], nn.Linear)][-1:])


def head_dropout(config: PretrainedConfig) -> float:
    """The rate in front of a head: the family's classifier dropout, else its hidden dropout, else 0.1."""
    for name in ("classifier_dropout", "hidden_dropout_prob", "hidden_dropout"):
        rate = getattr(config, name, None)
        if rate is not None:
            return float(rate)
    return 0.1


def _no_pooler(config: PretrainedConfig) -> dict[str, bool]:
    """An argument for families whose encoder builds a pooler by default."""
    takes = inspect.signature(AutoModel._model_mapping[type(config)].__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in takes else {}


def fill_head(model: OwnHead, file: Path) -> bool:
    """Load the layer stored next to an encoder; False when there is none. Raises ValueError when it does not fit."""
    if not file.is_file():
        return False
    parameters = dict(model.head.named_parameters(prefix="head"))
    with reading_foreign(str(file), "save the model again, or copy it again"):
        tensors = load_file(file)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {name: tuple(parameter.shape) for name, parameter in parameters.items()}:
        held = listed(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"{file} does not fit this recipe's head: it holds {held}")
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError(f"{file} holds NaN or infinity: use a model from before its training failed")
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
    return True


def _read_weights(
    auto_class: Any, source: str, config: PretrainedConfig, arguments: dict[str, Any]
) -> tuple[PreTrainedModel, list[str]]:
    """The model, its encoder filled, and the names of the head's tensors that the checkpoint does not hold."""
    return from_source(
        lambda name, only: load_checkpoint(
            name, config, auto_class, local_files_only=only, other_heads=True, **arguments
        ),
        source,
    )
