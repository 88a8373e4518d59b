"""Models small enough for tests: a tokenizer of made-up words, encoders, and models to pretrain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from finetuning.model.heads import random_headed
from pretraining.model.attention import attention_for
from pretraining.model.configuration import build_configuration
from pretraining.model.masked_lm import PretrainingModel, build_model

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FAMILIES = ("bert", "modernbert")


def tiny_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """Whole lower-case words; Chinese characters one by one."""
    vocabulary = {word: i for i, word in enumerate((*SPECIALS, *dict.fromkeys(word.lower() for word in words)))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIALS, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in names.items()}
    )


def tiny_config(family: str, vocab_size: int, *, dropout: float = 0.0) -> PretrainedConfig:
    """One or two layers of width 16."""
    shape = {"vocab_size": vocab_size, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    if family == "modernbert":
        return ModernBertConfig(
            **shape,
            num_hidden_layers=2,
            max_position_embeddings=128,
            embedding_dropout=dropout,
            mlp_dropout=dropout,
            attention_dropout=dropout,
            classifier_dropout=dropout,
            pad_token_id=0,
            cls_token_id=2,
            sep_token_id=3,
            bos_token_id=2,
            eos_token_id=3,
        )
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if family == "roberta":
        return RobertaConfig(
            **shape, **rates, num_hidden_layers=1, max_position_embeddings=129, type_vocab_size=1, pad_token_id=0
        )
    return BertConfig(**shape, **rates, num_hidden_layers=1, max_position_embeddings=128)


def tiny_model(recipe: Any, family: str, vocab_size: int, *, seed: int = 0, dropout: float = 0.0) -> Any:
    """The recipe's model with random weights and a head drawn from the seed."""
    headed = random_headed(tiny_config(family, vocab_size, dropout=dropout), recipe.head, seed=seed)
    return recipe.build_model(headed.draw(seed))


def save_tiny_model(directory: Path, family: str, words: list[str]) -> str:
    """A masked-language model with its tokenizer, as pretraining exports it."""
    tokenizer = tiny_tokenizer(words)
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(tiny_config(family, len(tokenizer))).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def built_model(
    model: str | None = None,
    *,
    objective: str = "mlm",
    attn_implementation: str = "sdpa",
    bf16: bool = False,
    seed: int = 0,
    gradient_checkpointing: bool = False,
    **naming: Any,
) -> PretrainingModel:
    """As the plan of a run does it: `naming` goes to `build_configuration`."""
    config = build_configuration(model, objective=objective, **naming)
    return build_model(
        config,
        objective=objective,
        attention=attention_for(attn_implementation, config, bf16=bf16),
        seed=seed,
        weights=naming.get("model_name_or_path"),
        gradient_checkpointing=gradient_checkpointing,
    )
