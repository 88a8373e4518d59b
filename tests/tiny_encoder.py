"""A tokenizer and encoders small enough for tests, from made-up words, without a file or the network."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast

from finetuning.encoder import Encoder

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


def tiny_encoder(family: str, vocab_size: int, *, seed: int = 0, dropout: float = 0.0) -> Encoder:
    """One or two layers of width 16, random weights."""
    torch.manual_seed(seed)
    if family == "bert":
        config = BertConfig(
            vocab_size=vocab_size,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=128,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        return Encoder(BertModel(config, add_pooling_layer=False))
    config = ModernBertConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
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
    return Encoder(ModernBertModel(config))


def save_tiny_model(directory: Path, family: str, words: list[str]) -> str:
    """A directory that AutoModel and AutoTokenizer load."""
    tokenizer = tiny_tokenizer(words)
    encoder = tiny_encoder(family, len(tokenizer))
    encoder.transformer.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)
