"""The share of unknown characters under the model's vocabulary, estimated on a sample of each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from finetuning.examples.pair_template import token_ids_with_offsets
from finetuning.examples.preflight import Preflight
from shards.tokenization.unknown_text import MUCH_UNKNOWN, count_characters

SAMPLED_TEXTS = 1_000
SAMPLED_CHARACTERS = 2_000  # of each text, from its beginning


def note_unknown_share(
    preflight: Preflight, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, Sequence[str]]
) -> None:
    """The share of each split's characters that become the unknown token; a warning at 2 % or more."""
    for split, own in texts.items():
        share = unknown_share(tokenizer, own)
        warning = (
            f"{share:.1%} of the characters of {split} become {tokenizer.unk_token}, so the model cannot read them: "
            "use a model whose vocabulary covers this language"
        )
        preflight.note(f"{split}_unknown_share", share, warning if share >= MUCH_UNKNOWN else None)


def unknown_share(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """The share of unknown characters, ignoring blanks, in up to 1,000 evenly spaced texts; 0 if there are none."""
    unknown_id = tokenizer.unk_token_id
    if unknown_id is None:
        return 0.0
    sample = [text[:SAMPLED_CHARACTERS] for text in texts[:: -(-len(texts) // SAMPLED_TEXTS) or 1]]
    unknown = 0
    for text, (ids, offsets) in zip(sample, token_ids_with_offsets(tokenizer, sample), strict=True):
        for number, (first, end) in zip(ids, offsets, strict=True):
            if number == unknown_id:
                unknown += count_characters(text[first:end])
    return unknown / max(1, sum(map(count_characters, sample)))
