"""The tokenizer is the same in every run, loads with AutoTokenizer, and text cannot smuggle in special ids."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.building.worker import EncoderOptions, TextEncoder, split_text, word_starts
from shards.streaming.masking import Masker, MaskOptions, read_vocabulary
from shards.text.cleaning import Cleaning
from shards.tokenization.vocabulary import (
    as_transformers,
    fingerprint,
    load_tokenizer,
    save_tokenizer,
    special_ids,
    train_vocabulary,
    vocabulary_length,
    wordpiece_tokenizer,
)

SYLLABLES = ("ba", "ke", "li", "mo", "nu", "ra", "so", "ti")
CHINESE = "天地玄黄宇宙洪荒日月盈昃辰宿列张"


def corpus(num_lines: int = 400) -> list[str]:
    rng = random.Random(0)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(200)]
    lines = [" ".join(rng.choices(words, k=9)).capitalize() + "." for _ in range(num_lines)]
    return [*lines, *("".join(rng.choices(CHINESE, k=12)) + "。" for _ in range(num_lines // 4))]


@pytest.fixture(scope="module", params=["wordpiece", "byte_bpe"])
def saved(request, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("vocabulary") / "tokenizer"
    save_tokenizer(train_vocabulary(corpus(), kind=request.param, vocab_size=400, lowercase=True), directory)
    return directory


def encoder(directory: Path, **changes: object) -> TextEncoder:
    tokenizer = load_tokenizer(str(directory))
    ids = special_ids(tokenizer)
    options = {
        "tokenizer_file": str(directory / "tokenizer.json"),
        "separator_id": ids["sep"],
        "unknown_id": ids["unk"],
        "special_ids": tuple(ids.values()),
        "token_dtype": "uint16",
        "cleaning": Cleaning(),
    }
    return TextEncoder(EncoderOptions(**(options | changes)))  # type: ignore[arg-type]


def test_autotokenizer_loads_it_with_its_special_tokens(saved):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert special_ids(tokenizer) == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert vocabulary_length(tokenizer) == len(tokenizer) <= 400
    ids = tokenizer("Bake mora")["input_ids"]
    assert (ids[0], ids[-1]) == (2, 3)
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "bake mora"
    assert tokenizer("a", "b")["input_ids"].count(3) == 2


def test_the_fingerprint_survives_saving_and_tells_tokenizers_apart(saved, tmp_path):
    tokenizer = load_tokenizer(str(saved))
    before = fingerprint(tokenizer)
    tokenizer(["a", "a b"], padding=True, truncation=True, max_length=8)
    save_tokenizer(tokenizer, tmp_path / "again")
    assert fingerprint(load_tokenizer(str(tmp_path / "again"))) == before
    kind = (
        "wordpiece"
        if json.loads((saved / "tokenizer.json").read_text())["model"]["type"] == "WordPiece"
        else "byte_bpe"
    )
    other = train_vocabulary(corpus()[:300], kind=kind, vocab_size=400, lowercase=True)  # type: ignore[arg-type]
    assert fingerprint(other) != before
    cased = train_vocabulary(corpus(), kind=kind, vocab_size=400, lowercase=False)  # type: ignore[arg-type]
    assert fingerprint(cased) != before


@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe"])
def test_training_is_the_same_in_every_process(kind, saved, project_root):
    here = fingerprint(train_vocabulary(corpus(), kind=kind, vocab_size=400, lowercase=True))
    code = (
        "from tests.shards.tokenization.test_vocabulary import corpus, train_vocabulary, fingerprint;"
        f"print(fingerprint(train_vocabulary(corpus(), kind={kind!r}, vocab_size=400, lowercase=True)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=project_root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == here


def test_chinese_characters_stand_alone():
    tokenizer = train_vocabulary(corpus(), kind="wordpiece", vocab_size=400, lowercase=True)
    assert tokenizer.tokenize("天地x玄") == ["天", "地", "[UNK]", "玄"]
    assert not any(token.startswith("##") and token[2:] in CHINESE for token in tokenizer.get_vocab())


def test_no_text_is_refused():
    with pytest.raises(ValueError, match="no text"):
        train_vocabulary(["", " \n"], kind="wordpiece", vocab_size=400, lowercase=True)


def test_a_tokenizer_without_a_mask_is_refused(saved):
    tokenizer = load_tokenizer(str(saved))
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="no mask token"):
        special_ids(tokenizer)
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_tokenizer(str(saved / "nothing"))


def test_special_tokens_spelled_out_in_the_text_stay_text(saved):
    chunk = encoder(saved).encode(["bake [MASK] mora [SEP][CLS] [PAD]", "[MASK]"])
    assert set(chunk.tokens[:-1].tolist()) & {0, 2, 4} == set()
    assert (chunk.tokens == 3).sum() == 2
    assert chunk.tokens[np.cumsum(chunk.lengths) - 1].tolist() == [3, 3]
    assert chunk.lengths.min() > 2


def test_a_vocabulary_with_gaps_in_its_ids_is_encoded_and_a_gap_is_never_drawn(tmp_path):
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "bake": 7, "mora": 900}
    save_tokenizer(as_transformers(wordpiece_tokenizer(vocabulary, lowercase=True)), tmp_path / "tokenizer")
    assert encoder(tmp_path / "tokenizer").encode(["bake mora"]).tokens.tolist() == [7, 900, 3]
    found = read_vocabulary(load_tokenizer(str(tmp_path / "tokenizer")))
    assert found.vocab_size == 901
    ids = np.tile([2, *[7, 900] * 30, 3], (50, 1))
    Masker(found, MaskOptions(rate=0.5)).hide(ids, np.arange(50, dtype=np.uint64), slots=30)
    assert set(ids.flat) == {2, 3, 4, 7, 900}


def test_documents_are_cleaned_counted_and_laid_end_to_end(saved):
    texts = ["bake mora", "", "  ", "Liso\nti", "x"]
    chunk = encoder(saved, cleaning=Cleaning(min_characters=2)).encode(texts)
    tokenizer = load_tokenizer(str(saved))
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] + [3] for text in ("bake mora", "Liso\nti")]
    assert chunk.tokens.tolist() == [*expected[0], *expected[1]]
    assert chunk.lengths.tolist() == [len(tokens) for tokens in expected]
    assert chunk.dropped == {"empty": 2, "too_short": 1}
    assert chunk.text_bytes == sum(map(len, texts))
    assert encoder(saved).encode([]).tokens.shape == (0,)


WORDS = st.sampled_from(["bake", "mora,", "Liso", "12", "it's", "天地", "。", "\n", "\n\n", "(so)", "  "])


@given(words=st.lists(WORDS, max_size=200), size=st.integers(5, 50))
def test_cutting_a_text_into_pieces_loses_nothing(words, size):
    text = " ".join(words)
    pieces = list(split_text(text, size))
    assert "".join(pieces) == text
    assert all(len(piece) <= 9 * size for piece in pieces)


@given(words=st.lists(WORDS, max_size=100))
def test_pieces_give_the_tokens_of_the_whole(saved, words):
    text = " ".join([*words, "bake mora"] * 3).strip()
    cut = encoder(saved)
    assert cut.piece_characters < 1 << 20
    cut.piece_characters = 20
    whole = cut.tokenizer.encode(text, add_special_tokens=False).ids
    assert cut.tokenize([text])[0].tolist() == [*whole, 3]


def test_a_document_of_megabytes_is_cut_into_small_pieces_with_and_without_spaces():
    for text in ("天" * 3_000_000, "word " * 600_000, "\n" * 3_000_000):
        assert max(map(len, split_text(text))) <= 18_000


class TwoByTwo:
    """A segmenter that takes two characters as a word."""

    def cut(self, text: str) -> list[str]:
        return [text[i : i + 2] for i in range(0, len(text), 2)]


def test_word_starts_follow_the_segmenter():
    offsets = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 6), (6, 7)]
    continues = np.zeros(6, dtype=bool)
    expected = [True, False, True, False, True, True]
    assert word_starts("天地玄黄ab日", offsets, TwoByTwo(), continues).tolist() == expected
    assert word_starts("", [], TwoByTwo(), continues[:0]).tolist() == []


class OneByOne:
    """A segmenter that cuts every character, as jieba does in scripts that it does not know (Cyrillic, é)."""

    def cut(self, text: str) -> list[str]:
        return list(text)


def test_a_segmenter_never_cuts_a_word_of_letters(saved):
    text = "天地 tibasonu天kekelira tibasonu"
    with_words = encoder(saved)
    with_words.segmenter = OneByOne()
    tokens, _, starts, _ = with_words.tokenize([text])
    encoded = with_words.tokenizer.encode(text, add_special_tokens=False)
    assert encoded.ids == tokens[:-1].tolist()
    assert len(encoded.ids) > 6
    begun = [start for (start, _), is_start in zip(encoded.offsets, starts[:-1], strict=True) if is_start]
    assert [text[start:].strip()[0] for start in begun] == ["天", "地", "t", "天", "k", "t"]


def test_jieba_words_line_up_with_tokens(saved):
    pytest.importorskip("jieba")
    chunk = encoder(saved, jieba_words=True).encode(["天地玄黄，bake mora", "日月"])
    assert chunk.word_starts is not None
    assert chunk.word_starts.shape == chunk.tokens.shape
    ends = np.cumsum(chunk.lengths)
    assert chunk.word_starts[ends - 1].all()
    assert chunk.word_starts[[0, ends[0]]].all()


GIANTS = {
    "letters": "".join(random.Random(1).choices("ABCDEFGHabcdefgh", k=1_000_000)),
    "several": " ".join("".join(random.Random(seed).choices("ACGT", k=60_000)) for seed in range(16)),
    "digits and letters": "".join(random.Random(2).choices("0123456789abcdef+/", k=1_000_000)),
    "Chinese": "".join(random.Random(3).choices(CHINESE, k=300_000)),
    "kana": "".join(random.Random(4).choices("あいうえお", k=300_000)),
    "marks": ("e" + "\u0301" * 40) * 8_000,
    "dashes": "-" * 300_000,
    "blanks": "x" + "\t " * 200_000 + "y",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe"])
@pytest.mark.parametrize("word", GIANTS)
def test_the_longest_word_costs_no_more_than_its_length(kind, word):
    """Seconds; training was quadratic in the longest word: half an hour for a million letters."""
    started = time.process_time()
    trained = train_vocabulary([*corpus(), GIANTS[word]], kind=kind, vocab_size=500, lowercase=True)
    assert time.process_time() - started < 60
    assert trained.tokenize("ba")


@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe"])
def test_long_words_are_left_out_of_the_sample_or_cut_and_the_rest_is_not(kind):
    lines = corpus()
    long = "".join(random.Random(1).choices("pqrst", k=500))
    plain = set(train_vocabulary(lines, kind=kind, vocab_size=400, lowercase=True).get_vocab())
    more = f" {CHINESE * 10}" if kind == "wordpiece" else ""  # its characters are words, though no blank separates them
    text = [f"{line} {long}.{more}" for line in lines]
    with_long = set(train_vocabulary(text, kind=kind, vocab_size=400, lowercase=True).get_vocab())
    if kind == "wordpiece":  # which could not use them
        assert not any("p" in token or "q" in token for token in with_long if not token.startswith("["))
        assert set(CHINESE) <= with_long
        assert len(plain & with_long) > 0.9 * len(plain)
    else:
        assert any(token in long and len(token) > 2 for token in with_long)
        assert max(map(len, with_long)) <= 101


def test_a_sample_of_long_words_only_is_refused_for_wordpiece():
    assert train_vocabulary(["a" * 101], kind="byte_bpe", vocab_size=300, lowercase=True).tokenize("aa")
    with pytest.raises(ValueError, match=r"more than 100 characters.*--vocabulary byte_bpe"):
        train_vocabulary(["a" * 101, " "], kind="wordpiece", vocab_size=300, lowercase=True)
    assert "a" * 100 in train_vocabulary(["a" * 100] * 3, kind="wordpiece", vocab_size=300, lowercase=True).get_vocab()
