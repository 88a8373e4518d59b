"""Pseudo-log-likelihoods: those of a plain loop over single rows, masked within words, the same for equal tokens."""

import random

import numpy as np
import pytest
import torch
from tiny_encoder import FAMILIES, tiny_config, tiny_tokenizer
from transformers import AutoModelForMaskedLM

from gap.tasks.likelihood import EncodedSentence, MaskedRows, encode_sentences, pseudo_log_likelihoods

PIECES = ["the", "cat", "sat", "on", "un", "##break", "##able", "##s", "mat", "dog", "."]
WORDS = ["the", "cat", "cats", "sat", "on", "unbreakable", "unbreakables", "mat", "mats", "dogs", "."]


def model_of(family, tokenizer):
    torch.manual_seed(1)
    config = tiny_config(family, len(tokenizer))
    config.initializer_range = 0.5  # far from uniform predictions
    return AutoModelForMaskedLM.from_config(config).eval()


@torch.no_grad()
def reference(model, tokenizer, text, *, within_word):
    """Salazar et al. 2020 and Kauf and Ivanova 2023 as they are described: one row at a time, no sharing."""
    encoded = tokenizer(text)
    ids, words, total = encoded["input_ids"], encoded.word_ids(), 0.0
    for position, word in enumerate(words):
        if word is None:
            continue
        masked = list(ids)
        for later in range(position, len(ids) if within_word else position + 1):
            if words[later] == word:
                masked[later] = tokenizer.mask_token_id
        logits = model(input_ids=torch.tensor([masked]), attention_mask=torch.ones(1, len(ids))).logits[0, position]
        total += float(logits.double().log_softmax(-1)[ids[position]])
    return total


@pytest.mark.parametrize("family", FAMILIES)
def test_they_equal_a_plain_loop_on_a_hundred_pairs(family):
    tokenizer, generator = tiny_tokenizer(PIECES), random.Random(2)
    model = model_of(family, tokenizer)
    texts = [" ".join(generator.choices(WORDS, k=generator.randrange(1, 9))) for _ in range(200)]
    found = pseudo_log_likelihoods(model, tokenizer, texts, longest=64, batch_rows=7)
    for name in ("within_word", "plain"):
        expected = [reference(model, tokenizer, text, within_word=name == "within_word") for text in texts]
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-4)
    several = [len(tokenizer(text)["input_ids"]) - 2 > len(text.split()) for text in texts]
    assert (np.abs(found["within_word"] - found["plain"])[several] > 1e-3).mean() > 0.9
    assert (found["within_word"] == found["plain"])[np.logical_not(several)].all()


def test_later_pieces_of_the_same_word_are_masked_too():
    """the un ##break ##able cat: of the long word first all three pieces, then two, then one."""
    tokenizer = tiny_tokenizer(PIECES)
    (sentence,) = encode_sentences(tokenizer, ["the unbreakable cat"], 16)
    assert sentence.words == (None, 0, 1, 1, 1, 2, None)
    assert [sentence.masked(position, within_word=True) for position in range(1, 6)] == [
        [1],
        [2, 3, 4],
        [3, 4],
        [4],
        [5],
    ]
    assert [sentence.masked(position, within_word=False) for position in range(1, 6)] == [[1], [2], [3], [4], [5]]
    rows = MaskedRows(tokenizer.mask_token_id)
    within, plain = (rows.add(sentence, within_word=within_word) for within_word in (True, False))
    assert len(rows.rows) == 5 + 2  # shared: the words of one token, and the last token of the long word
    assert [first == second for first, second in zip(within, plain, strict=True)] == [True, False, False, True, True]


def test_a_word_that_occurs_twice_is_two_words():
    sentence = EncodedSentence((2, 5, 6, 5, 6, 3), (None, 0, 0, 1, 1, None))
    assert sentence.masked(1, within_word=True) == [1, 2]


def test_equal_tokens_get_equal_numbers_and_rows_are_computed_once(monkeypatch):
    tokenizer = tiny_tokenizer(PIECES)
    model = model_of("bert", tokenizer)
    texts = ["The cat  sat on the unbreakable mat .", "a dog", "the cat sat on the unbreakable mat."] * 40
    for batch_rows in (1, 3, 128):
        found = pseudo_log_likelihoods(model, tokenizer, texts, longest=64, batch_rows=batch_rows)
        for values in found.values():
            assert len(set(values[::3])) == len(set(values[1::3])) == 1
            assert (values[::3] == values[2::3]).all()
    rows = MaskedRows(tokenizer.mask_token_id)
    for sentence in encode_sentences(tokenizer, texts, 64):
        rows.add(sentence, within_word=False)
    assert len(rows.rows) == 10 + 2
    batches = list(rows.batches(4))
    assert sorted(number for batch in batches for number in batch) == list(range(12))
    for batch in batches:
        assert len(batch) <= 4
        assert len({len(rows.rows[number]) for number in batch}) == 1


def test_what_cannot_be_scored_is_refused():
    tokenizer = tiny_tokenizer(PIECES)
    with pytest.raises(ValueError, match=r"has 7 tokens, more than the 6 .*--max_seq_length"):
        encode_sentences(tokenizer, ["the unbreakable cat"], 6)
    with pytest.raises(ValueError, match="has no token"):
        encode_sentences(tokenizer, ["\u200b"], 6)
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="no mask token"):
        pseudo_log_likelihoods(model_of("bert", tokenizer), tokenizer, ["the"], longest=6, batch_rows=1)
