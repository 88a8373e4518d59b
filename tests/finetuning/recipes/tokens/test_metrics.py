"""Entity scores: seqeval's, which are conlleval's, for every scheme that it can read; and which scheme a set has."""

import random

import pytest

from finetuning.recipes.tokens.metrics import (
    IOB2,
    IOBES,
    begins_inside,
    entity_counts,
    entity_scores,
    marks_entities_otherwise,
    scheme_of,
)


@pytest.mark.parametrize(
    ("labels", "scheme", "other"),
    [
        (["O", "B-PER", "I-PER"], IOB2, False),
        (["B-a-b"], IOB2, False),
        (["O", "I-LOC"], IOB2, False),
        (["O", "S-PER", "B-PER", "I-PER", "E-PER"], IOBES, False),
        (["O", "U-PER", "B-PER", "I-PER", "L-PER"], None, True),
        (["O", "B-PER", "M-PER", "E-PER"], None, True),
        (["NOUN", "VERB", "O"], None, False),
        (["O"], None, False),
        (["B-PER", "NOUN"], None, False),
        (["-LRB-", "B-", "NN"], None, False),
    ],
)
def test_the_scheme_is_read_off_the_tags(labels, scheme, other):
    assert scheme_of(labels) == scheme
    assert marks_entities_otherwise(labels) is other


def test_entities_are_right_with_their_type_and_both_ends():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC", "I-LOC"]]
    guess = [["B-PER", "I-PER", "O", "B-PER"], ["O", "B-LOC", "O"]]
    assert entity_scores(gold, guess) == pytest.approx({"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3})
    counts = [entity_counts(*pair) for pair in zip(gold, guess, strict=True)]
    assert counts == [
        {"true_positives": 1, "predicted_entities": 2, "gold_entities": 2},
        {"true_positives": 0, "predicted_entities": 1, "gold_entities": 1},
    ]
    assert entity_scores([["O"]], [["O"]]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_the_same_entities_in_three_schemes_have_the_same_scores():
    """Two neighbours of one type, which IOB1 marks with B-, one of one word, one at the end."""
    schemes = {
        "IOB1": ["I-A", "I-A", "B-A", "O", "I-B", "O", "I-A", "I-A", "I-A"],
        "IOB2": ["B-A", "I-A", "B-A", "O", "B-B", "O", "B-A", "I-A", "I-A"],
        "IOBES": ["B-A", "E-A", "S-A", "O", "S-B", "O", "B-A", "I-A", "E-A"],
    }
    for tags in schemes.values():
        assert entity_counts(tags, tags) == {"true_positives": 4, "predicted_entities": 4, "gold_entities": 4}
        missed = [*tags[:4], "O", *tags[5:]]
        assert entity_scores([tags], [missed]) == pytest.approx({"precision": 1.0, "recall": 0.75, "f1": 6 / 7})
    assert begins_inside([schemes["IOB1"]]) == 3
    assert begins_inside([schemes["IOB2"], schemes["IOBES"]]) == 0


def test_counts_of_sentences_add_up_to_the_scores_of_all():
    """What the bootstrap of a study sums must be what a cell was scored by, invalid sequences included."""
    tags = ["O", "O", "B-A", "I-A", "B-B", "I-B", "E-A", "S-B"]
    generator = random.Random(0)
    gold = [generator.choices(tags, k=generator.randrange(12)) for _ in range(80)]
    guess = [[tag if generator.random() < 0.7 else generator.choice(tags) for tag in one] for one in gold]
    sums = [entity_counts(*pair) for pair in zip(gold, guess, strict=True)]
    true, guessed, there = (sum(one[name] for one in sums) for name in sums[0])
    scores = entity_scores(gold, guess)
    assert (scores["precision"], scores["recall"]) == pytest.approx((true / guessed, true / there))
    assert scores["f1"] == pytest.approx(2 * true / (guessed + there))
