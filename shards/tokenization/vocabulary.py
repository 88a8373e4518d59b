"""Training of a tokenizer on a sample of the corpus, saving for `AutoTokenizer`, and fingerprints."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from runtime.files.whole_files import whole_directory
from shards.tokenization.tokenizer_source import open_tokenizer

SPECIAL_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
CHARACTER_COVERAGE = 0.9999
LARGEST_ALPHABET_SHARE = 0.75
MOST_UINT16_TOKENS = 1 << 16
LONGEST_WORD = 100  # characters; WordPiece makes longer words unknown, and training is quadratic in them
LONG_RUN = re.compile(rf"\S{{{LONGEST_WORD + 1},}}|\s{{{LONGEST_WORD + 1},}}")
IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"  # each a word of its own in BERT
LONG_RUN_OF_BERT = re.compile(rf"[^\s{IDEOGRAPHS}]{{{LONGEST_WORD + 1},}}")


def train_vocabulary(
    texts: Iterable[str], *, kind: Literal["wordpiece", "byte_bpe"], vocab_size: int, lowercase: bool
) -> Any:
    """Train a vocabulary and return it as a `transformers` tokenizer; the same texts give the same one.

    WordPiece is BERT's (Devlin et al. 2019): Chinese characters stand alone, accents are dropped when uncased.
    Byte-level BPE is GPT-2's (Radford et al. 2019). Ids 0 to 4 are [PAD] [UNK] [CLS] [SEP] [MASK]. Words of more than
    100 characters are left out for WordPiece, which makes them unknown anyway, and cut for byte-level BPE. Raises
    ValueError without any text, or for WordPiece without any other word.
    """
    lines = [line for text in texts for line in text.split("\n") if line.strip()]
    if not lines:
        raise ValueError("no text to train a vocabulary on: check --input, --text_column and --min_characters")
    specials = list(SPECIAL_TOKENS.values())
    if kind == "wordpiece":
        tokenizer = train_wordpiece(lines, vocab_size, lowercase)
        tokenizer.decoder = decoders.WordPiece()
    else:
        tokenizer = Tokenizer(models.BPE())
        if lowercase:
            tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=specials,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        words = list(bounded_words(lines, tokenizer, cut=True))  # before training, which locks the tokenizer
        tokenizer.train_from_iterator(words, trainer)
    tokenizer.add_special_tokens(specials)
    cls, sep = SPECIAL_TOKENS["cls"], SPECIAL_TOKENS["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, tokenizer.token_to_id(cls)), (sep, tokenizer.token_to_id(sep))],
    )
    return as_transformers(tokenizer)


def train_wordpiece(lines: list[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    """WordPiece as in BERT.

    The library numbers continuation characters ("##a") in the order of a randomly seeded hash map, which changes ids
    and, through ties, the vocabulary from run to run. So they are given to the trainer as special tokens, in a fixed
    order, and the vocabulary is then copied into a fresh model where they are not special.
    """
    tokenizer = wordpiece_tokenizer({}, lowercase)
    lines = [line for line in bounded_words(lines, tokenizer, cut=False) if line.strip()]
    if not lines:
        raise ValueError(
            f"every word of the text that the vocabulary is trained on has more than {LONGEST_WORD} characters, which "
            "WordPiece makes unknown: give --vocabulary byte_bpe, or a larger --vocabulary_sample_mb"
        )
    alphabet = common_characters(lines, tokenizer, round(vocab_size * LARGEST_ALPHABET_SHARE))
    continuations = [f"##{character}" for character in alphabet if continues_words(character, tokenizer)]
    specials = list(SPECIAL_TOKENS.values())
    trainer = trainers.WordPieceTrainer(
        vocab_size=max(vocab_size, len(specials) + len(alphabet) + len(continuations)),
        special_tokens=specials + continuations,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return wordpiece_tokenizer(tokenizer.get_vocab(with_added_tokens=True), lowercase)


def bounded_words(lines: Iterable[str], tokenizer: Tokenizer, *, cut: bool) -> Iterator[str]:
    """Lines in which no word is longer than LONGEST_WORD characters.

    Longer ones are left out (for a tokenizer like BERT's); with `cut` (for byte-level BPE), they are cut into pieces,
    each a line of its own.
    """
    for line in lines:
        kept, end = [], 0
        for run in (LONG_RUN if cut else LONG_RUN_OF_BERT).finditer(line):
            words = tokenizer.pre_tokenizer.pre_tokenize_str(run.group())
            for first, last in (offsets for _, offsets in words if offsets[1] - offsets[0] > LONGEST_WORD):
                kept.append(line[end : run.start() + first])
                end = run.start() + last
                if cut:
                    word = line[run.start() + first : end]
                    kept.extend(word[start : start + LONGEST_WORD] for start in range(0, len(word), LONGEST_WORD))
        kept.append(line[end:])
        if cut:
            yield from filter(None, kept)
        else:
            yield " ".join(kept)


def wordpiece_tokenizer(vocabulary: dict[str, int], lowercase: bool) -> Tokenizer:
    """A WordPiece tokenizer with BERT's normalizer and pre-tokenizer."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL_TOKENS["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def common_characters(lines: list[str], tokenizer: Tokenizer, most: int) -> list[str]:
    """The most frequent characters that cover 99.99 % of the text, at most `most`, in order of code point."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(tokenizer.normalizer.normalize_str(line))
    for character in [character for character in counts if character.isspace()]:
        del counts[character]
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    wanted, covered, total = 0, 0, sum(counts.values())
    while wanted < min(most, len(ranked)) and covered < CHARACTER_COVERAGE * total:
        covered += ranked[wanted][1]
        wanted += 1
    return sorted(character for character, _ in ranked[:wanted])


def continues_words(character: str, tokenizer: Tokenizer) -> bool:
    """Whether a character can stand inside a word: punctuation and Chinese characters stand alone."""
    text = tokenizer.normalizer.normalize_str(f"a{character}a")
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(text)) == 1


def as_transformers(tokenizer: Tokenizer) -> Any:
    """Wrap a trained tokenizer for `transformers`."""
    from transformers import PreTrainedTokenizerFast

    names = {f"{name}_token": token for name, token in SPECIAL_TOKENS.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)


def load_tokenizer(name: str) -> Any:
    """Load a `transformers` tokenizer from a directory or by its hub name; ValueError as in `open_tokenizer`."""
    try:
        return open_tokenizer(name)
    except OSError as error:
        raise ValueError(f"--tokenizer {name} cannot be loaded ({error}): give a directory or a hub name") from error


def special_ids(tokenizer: Any) -> dict[str, int]:
    """Ids of pad, unk, cls, sep and mask; bos and eos replace missing cls and sep, pad an unk that is never needed.

    Raises ValueError for a tokenizer without mask or padding.
    """
    stand_ins = {"cls": tokenizer.bos_token_id, "sep": tokenizer.eos_token_id, "unk": tokenizer.pad_token_id}
    ids: dict[str, int] = {}
    for name in SPECIAL_TOKENS:
        own = getattr(tokenizer, f"{name}_token_id")
        number = stand_ins.get(name) if own is None else own
        if number is None:
            raise ValueError(f"the tokenizer has no {name} token: use one made for masked language models")
        ids[name] = int(number)
    return ids


def fingerprint(tokenizer: Any) -> str:
    """The sha256 of all that decides a tokenizer's ids: model, normalizer, pre-tokenizer, added tokens, special ids.

    Padding, truncation and file layout do not count, so saving and loading do not change it.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = {name: content[name] for name in ("model", "normalizer", "pre_tokenizer", "added_tokens")}
    parts["special_ids"] = special_ids(tokenizer)
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def vocabulary_length(tokenizer: Any) -> int:
    """One more than the largest id."""
    return 1 + max(tokenizer.get_vocab().values())


def save_tokenizer(tokenizer: Any, directory: Path) -> None:
    """Save for `AutoTokenizer.from_pretrained(directory)`, whole or not at all."""
    with whole_directory(directory) as temporary:
        tokenizer.save_pretrained(temporary)
