"""Truncation keeps the documented parts and never more than allowed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from finetuning.examples.pair_template import PairTemplate
from finetuning.model.names import TRUNCATIONS
from finetuning.recipes.texts.rows import SpecialTokens, build_row, special_tokens, truncate, truncate_pair

BERT = SpecialTokens(PairTemplate(prefix=(2,), middle=(3,), suffix=(3,), second_type=1), after_single=(3,))


def test_each_way_keeps_its_part():
    tokens = list(range(10))
    assert truncate(tokens, 4, "head") == [0, 1, 2, 3]
    assert truncate(tokens, 4, "tail") == [6, 7, 8, 9]
    assert truncate(tokens, 4, "head+tail") == [0, 7, 8, 9]
    assert truncate(tokens, 10, "tail") == tokens
    assert truncate(tokens, 0, "tail") == []


def test_a_bert_input_keeps_128_and_382_tokens_as_in_sun_et_al():
    kept = truncate(list(range(1000)), 510, "head+tail")
    assert kept[:128] == list(range(128))
    assert kept[128:] == list(range(618, 1000))


@given(
    first=st.lists(st.integers(10, 99), max_size=30),
    second=st.lists(st.integers(10, 99), max_size=30),
    length=st.integers(0, 40),
    how=st.sampled_from(TRUNCATIONS),
)
def test_a_pair_fits_and_loses_no_more_than_needed(first, second, length, how):
    one, two = truncate_pair(first, second, length, how)
    assert len(one) + len(two) == min(length, len(first) + len(second))
    if len(one) < len(first) and len(two) < len(second):
        assert abs(len(one) - len(two)) <= 1
    elif len(one) < len(first):
        assert len(one) >= len(two) - 1


@given(tokens=st.lists(st.integers(10, 99), max_size=30), length=st.integers(3, 20), how=st.sampled_from(TRUNCATIONS))
def test_a_row_is_never_too_long_and_keeps_its_special_tokens(tokens, length, how):
    ids, types = build_row(tokens, None, BERT, max_seq_length=length, how=how)
    assert len(ids) == len(types) == min(length, len(tokens) + 2)
    assert (ids[0], ids[-1]) == (2, 3)
    ids, types = build_row(tokens, tokens, BERT, max_seq_length=length, how=how)
    assert ids.count(3) == 2
    assert len(ids) == len(types) == min(length, 2 * len(tokens) + 3)
    assert types.index(1) == ids.index(3) + 1


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="raise --max_seq_length"):
        build_row([1], None, BERT, max_seq_length=1, how="head")


@pytest.mark.parametrize("pair", ["[CLS] $A [SEP] $B:1 [SEP]:1", "[CLS] $A [SEP] [SEP] $B [SEP]"])
def test_rows_equal_those_of_the_tokenizer(pair):
    vocabulary = {name: i for i, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    special = special_tokens(fast)
    for texts in (("a b",), ("a b", "c b a"), ("", "c")):
        wanted = fast(*texts, return_token_type_ids=True)
        parts = [fast(text, add_special_tokens=False)["input_ids"] for text in texts]
        ids, types = build_row(parts[0], parts[1] if len(parts) > 1 else None, special, max_seq_length=20, how="head")
        assert ids == wanted["input_ids"]
        assert types == wanted["token_type_ids"]
