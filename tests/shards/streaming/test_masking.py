import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_directories import VOCAB_SIZE, vocabulary

from shards.streaming.masking import Masker, MaskOptions, Vocabulary, continues_word, mask_slots, read_vocabulary
from shards.streaming.splitmix import key, keys


def sequences(count, length, seed=0, special_share=0.05):
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, VOCAB_SIZE, (count, length))
    ids[rng.random(ids.shape) < special_share] = 3
    ids[:, 0], ids[:, -1] = 2, 3
    return ids


def hide(ids, *, seed=0, slots=None, **options):
    options = MaskOptions(**options)
    hidden = ids.copy()
    slots = slots or mask_slots(ids.shape[1] - 2, options.rate)
    masker = Masker(vocabulary(with_words=True), options)
    return (hidden, *masker.hide(hidden, keys(key(seed), np.arange(len(ids))), slots))


@given(
    length=st.integers(3, 80),
    rate=st.sampled_from([0.01, 0.15, 0.3, 0.4, 0.9]),
    whole=st.booleans(),
    share=st.floats(0, 1),
)
def test_masks_are_distinct_ordinary_tokens_and_never_none(length, rate, whole, share):
    ids = sequences(20, length, special_share=share)
    hidden, positions, labels, weights = hide(ids, rate=rate, whole_word=whole)
    assert positions.shape == labels.shape == weights.shape == (20, mask_slots(length - 2, rate))
    np.testing.assert_array_equal(labels, np.take_along_axis(ids, positions, axis=1))
    for row in range(20):
        used = positions[row][weights[row] > 0]
        assert len(set(used.tolist())) == len(used)
        assert (ids[row, used] >= 5).all()
        assert (len(used) > 0) == bool((ids[row] >= 5).any())
        untouched = np.delete(np.arange(length), used)
        np.testing.assert_array_equal(hidden[row, untouched], ids[row, untouched])
        assert not positions[row][weights[row] == 0].any()


@pytest.mark.parametrize("rate", [0.15, 0.3, 0.4])
def test_the_rate_is_exact_for_tokens_and_close_for_whole_words(rate):
    ids = sequences(400, 128, special_share=0)
    weights = hide(ids, rate=rate)[3]
    assert weights.sum() == 400 * mask_slots(126, rate)
    whole = hide(ids, rate=rate, whole_word=True)[3]
    assert 0.95 * weights.sum() < whole.sum() <= weights.sum()


def test_every_position_is_masked_equally_often():
    ids = sequences(20_000, 18, special_share=0)
    _, positions, _, weights = hide(ids, rate=0.25)
    counts = np.bincount(positions[weights > 0], minlength=18)[1:17]
    expected = weights.sum() / 16
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_eighty_ten_ten_and_other_shares():
    ids = sequences(2000, 128, special_share=0)
    for mask_share, random_share in ((0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.5, 0.25)):
        hidden, positions, labels, _ = hide(ids, mask_share=mask_share, random_share=random_share)
        shown = np.take_along_axis(hidden, positions, axis=1)
        assert abs((shown == 4).mean() - mask_share) < 0.01
        assert abs((shown == labels).mean() - (1 - mask_share - random_share)) < 0.01
        assert ((shown >= 5) | (shown == 4)).all()


def test_random_replacements_cover_the_ordinary_vocabulary():
    ids = sequences(2000, 128, special_share=0)
    hidden, positions, _, _ = hide(ids, mask_share=0, random_share=1)
    assert set(np.take_along_axis(hidden, positions, axis=1).ravel().tolist()) == set(range(5, VOCAB_SIZE))


@given(order=st.permutations(range(12)), size=st.integers(1, 12), whole=st.booleans())
def test_masks_do_not_depend_on_the_sequences_around(order, size, whole):
    ids = sequences(12, 40)
    sequence_keys = keys(key(3), np.arange(12))
    masker = Masker(vocabulary(with_words=True), MaskOptions(whole_word=whole))
    whole_batch = ids.copy()
    expected = masker.hide(whole_batch, sequence_keys, 6)
    chosen = list(order)[:size]
    part = ids[chosen]
    for got, want in zip(masker.hide(part, sequence_keys[chosen], 6), expected, strict=True):
        np.testing.assert_array_equal(got, want[chosen])
    np.testing.assert_array_equal(part, whole_batch[chosen])


def test_another_seed_gives_other_masks():
    ids = sequences(50, 64)
    assert (hide(ids, seed=0)[1] != hide(ids, seed=1)[1]).mean() > 0.5


@given(seed=st.integers(0, 30), slots=st.integers(1, 12))
def test_whole_words_are_hidden_whole_and_never_exceed_the_slots(seed, slots):
    ids = sequences(20, 40, seed=seed)
    table = vocabulary(with_words=True).continues_word
    _, positions, _, weights = hide(ids, seed=seed, slots=slots, rate=0.2, whole_word=True)
    for row in range(20):
        special = ids[row] < 5
        starts = ~table[ids[row]] | special | np.append(True, special[:-1])
        words = np.cumsum(starts)
        used = positions[row][weights[row] > 0]
        assert 0 < len(used) <= slots
        for word in np.unique(words[used]):
            members = np.flatnonzero((words == word) & ~special)
            if len(members) <= slots:
                assert np.isin(members, used).all()


def test_one_word_longer_than_the_slots_is_cut_not_skipped():
    table = np.arange(VOCAB_SIZE) >= 6
    masker = Masker(dataclasses.replace(vocabulary(), continues_word=table), MaskOptions(rate=0.2, whole_word=True))
    ids = np.array([[2, *range(10, 30), 3]])
    *_, weights = masker.hide(ids, keys(key(0), np.arange(1)), 4)
    assert weights.sum() == 4


def test_whole_words_without_boundaries_are_refused():
    masker = Masker(vocabulary(), MaskOptions(whole_word=True))
    with pytest.raises(ValueError, match="needs word boundaries"):
        masker.hide(sequences(2, 10), keys(key(0), np.arange(2)), 2)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2])
def test_rates_outside_zero_and_one_are_refused(rate):
    with pytest.raises(ValueError, match="mask_rate"):
        MaskOptions(rate=rate)


@pytest.mark.parametrize("shares", [(0.8, 0.3), (-0.1, 0.1), (0.8, -0.1), (float("nan"), 0.1)])
def test_shares_below_zero_or_together_above_one_are_refused(shares):
    with pytest.raises(ValueError, match="each must be 0 or more, and their sum at most 1"):
        MaskOptions(mask_share=shares[0], random_share=shares[1])


def byte_level(text):
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel(add_prefix_space=False).pre_tokenize_str(text)[0][0]


def test_word_boundaries_of_the_three_kinds_of_vocabulary():
    assert continues_word(["[CLS]", "the", "##re", "##", "中"]).tolist() == [False, False, True, False, False]
    tokens = ["Ġthe", "re", ",", byte_level("中"), byte_level("é"), "7", "Ġ", "Ċ"]
    assert continues_word(tokens).tolist() == [False, True, False, False, True, True, False, False]
    assert continues_word(["▁the", "re", ",", "中", "é"]).tolist() == [False, True, False, False, True]
    assert continues_word(["whole", "words", "only"]).tolist() == [False, False, False]


def test_the_vocabulary_of_a_tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(
        models.WordPiece({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "a": 5, "##b": 6})
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    found = read_vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **names))
    assert (found.vocab_size, found.pad, found.cls, found.sep, found.mask) == (7, 0, 2, 3, 4)
    assert found.special_ids == (0, 1, 2, 3, 4)
    assert found.continues_word.tolist() == [False] * 6 + [True]
    del names["mask_token"]
    with pytest.raises(ValueError, match="no mask token"):
        read_vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend, **names))


def test_a_vocabulary_of_special_tokens_only_is_refused():
    with pytest.raises(ValueError, match="special tokens only"):
        Masker(Vocabulary(5, (0, 1, 2, 3, 4), 0, 2, 3, 4), MaskOptions())


def test_the_masks_of_a_seed_never_change():
    ids = np.arange(5, 45).reshape(2, 20)
    hidden, positions, _, _ = hide(ids, seed=1, rate=0.3)
    assert (positions.tolist(), hidden[0].tolist()) == (
        [[2, 4, 6, 8, 19], [3, 8, 10, 16, 18]],
        [5, 6, 7, 8, 4, 10, 4, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 4],
    )
