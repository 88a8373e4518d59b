"""Rows of sentences: a label on each word's first token, windows in which each word is predicted once."""

import pytest
from tiny_encoder import tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from finetuning.recipes.questions.windows import Windows
from finetuning.recipes.tokens.rows import IGNORED, best_window, encode_sentences, for_words, token_ids_of_words
from finetuning.recipes.tokens.sentences import TaggedSentence

LABELS = ("X", "Y")
WIDE = Windows(64, 8)


def tokenizer_of_pieces():
    """Whole words, and pieces of one or two letters for others."""
    return tiny_tokenizer(["one", "two", "pa", "##pa", "a", "##a", "##b"])


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["one two one two one two"], trainer)
    tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 1))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")


def sentence(words, tags=None, name="s"):
    words = tuple(words.split(" "))
    return TaggedSentence(name, words, tuple((tags or "X " * len(words)).split()))


def encoded(sentences, windows=WIDE, *, training=False, tokenizer=None):
    return encode_sentences(sentences, LABELS, tokenizer or tokenizer_of_pieces(), windows, training=training)


def test_a_word_has_its_label_on_its_first_token_and_others_are_ignored():
    ((row,), counts) = encoded([sentence("one papapa two", "X Y X")])
    assert row["labels"] == [IGNORED, 0, 1, IGNORED, IGNORED, 0, IGNORED]
    assert (row["places"], row["words"], row["weight"]) == ([1, 2, 5], [0, 1, 2], 3)
    assert len(row["input_ids"]) == len(row["token_type_ids"]) == 7
    assert (counts.words, counts.rows, counts.long_sentences) == (3, 1, 0)


def test_words_without_tokens_tags_or_a_known_tag_are_counted_and_teach_nothing():
    words = ("one", "\u200b", "", "two", "two", "one")
    ((row,), counts) = encoded([TaggedSentence("s", words, ("X", "Y", "Y", None, "Z", "Y"))])
    assert row["words"] == [0, 3, 4, 5]
    assert [row["labels"][place] for place in row["places"]] == [0, IGNORED, IGNORED, 1]
    assert (counts.without_tokens, counts.untagged_words, counts.unseen_tags, row["weight"]) == (2, 1, 1, 2)


def test_a_sentence_without_labels_has_a_row_unless_it_is_to_train():
    empty = [
        TaggedSentence("e", (), ()),
        TaggedSentence("u", ("\x00",), ("X",)),
        TaggedSentence("n", ("one",), (None,)),
    ]
    rows, counts = encoded(empty)
    assert [row["example_id"] for row in rows] == ["e", "u", "n"]
    assert (counts.without_words, counts.untagged_words) == (1, 0)
    rows, counts = encoded([*empty, sentence("one")], training=True)
    assert [row["example_id"] for row in rows] == ["s"]
    assert counts.dropped == 3


@pytest.mark.parametrize("words", [7, 20, 53])
@pytest.mark.parametrize(("longest", "overlap"), [(10, 4), (10, 0), (8, 99), (64, 8)])
def test_every_word_is_in_one_window_that_no_other_beats(words, longest, overlap):
    text = " ".join(("one", "papa", "two")[number % 3] for number in range(words))
    windows, one = Windows(longest, overlap), sentence(text)
    rows, counts = encoded([one], windows)
    assert sorted(word for row in rows for word in row["words"]) == list(range(words))
    assert all(len(row["input_ids"]) <= longest for row in rows)
    assert [row["window"] for row in rows] == list(range(len(rows)))
    assert counts.long_sentences == (len(rows) > 1)
    ((ids, first),) = token_ids_of_words(tokenizer_of_pieces(), [one])
    spans = list(windows.spans(len(ids), longest - 2))
    context = [
        {word: min(place - start, end - 1 - place) for word, place in first.items() if start <= place < end}
        for start, end in spans
    ]
    for row, own in zip(rows, context, strict=True):
        for word in row["words"]:
            assert own[word] == max(other[word] for other in context if word in other)
            assert row["input_ids"][row["places"][row["words"].index(word)]] == ids[first[word]]


def test_of_two_windows_the_one_with_context_on_both_sides_is_taken():
    assert [best_window([(0, 8), (4, 12)], place) for place in (0, 4, 5, 6, 7, 11)] == [0, 0, 0, 1, 1, 1]


def test_a_word_longer_than_a_row_is_still_predicted_at_its_first_token():
    rows, _ = encoded([sentence("one pa" + "pa" * 30 + " two", "X Y X")], Windows(8, 2))
    assert sorted(word for row in rows for word in row["words"]) == [0, 1, 2]


def test_a_byte_level_tokenizer_keeps_the_blank_before_every_word():
    """As the words stood in the text that it was trained on; the given tokenizer stays as it is."""
    given = byte_level()
    tokenizer = for_words(given)
    ((ids, first),) = token_ids_of_words(tokenizer, [sentence("two one")])
    assert ids == given("x two one")["input_ids"][2:-1]
    assert first == {0: 0, 1: len(ids) - len(given(" one")["input_ids"]) + 2}
    assert token_ids_of_words(given, [sentence("two one")])[0][0] != ids
    words = tokenizer_of_pieces()
    assert token_ids_of_words(for_words(words), [sentence("two one")]) == token_ids_of_words(
        words, [sentence("two one")]
    )
