"""The n best spans against a search through all of them, and the best window of a question."""

import itertools
import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetuning.recipes.questions.spans import (
    SpanLimits,
    answers_by_example,
    best_spans,
    gold_by_example,
    gold_log_probabilities,
    probabilities,
)


def search(starts, ends, allowed, limits):
    pairs = [
        (starts[i] + ends[j], i, j)
        for i, j in itertools.product(range(len(starts)), repeat=2)
        if allowed[i] and allowed[j] and i <= j < i + limits.max_answer_length
    ]
    return sorted(pairs, key=lambda pair: -pair[0])[: limits.n_best_size]


@given(st.integers(1, 14), st.integers(1, 30), st.integers(1, 20), st.integers(0, 10_000))
def test_best_spans_are_those_of_a_full_search(length, n_best, longest, seed):
    generator = torch.Generator().manual_seed(seed)
    starts, ends = torch.randn(2, 3, length, generator=generator)
    allowed = torch.rand(3, length, generator=generator) < 0.7
    limits = SpanLimits(n_best, longest)
    found = best_spans(starts, ends, allowed, limits)
    for row in range(3):
        expected = search(starts[row].tolist(), ends[row].tolist(), allowed[row].tolist(), limits)
        real = torch.isfinite(found["span_scores"][row])
        assert int(real.sum()) == len(expected)
        places = zip(found["span_starts"][row][real].tolist(), found["span_ends"][row][real].tolist(), strict=True)
        assert list(places) == [(i, j) for _, i, j in expected]
        assert found["span_scores"].shape == (3, n_best)
    assert torch.equal(found["null_scores"], starts[:, 0] + ends[:, 0])


def test_padding_changes_no_span():
    starts, ends = torch.randn(2, 2, 10, generator=torch.Generator().manual_seed(0))
    allowed = torch.ones(2, 10, dtype=torch.bool)
    plain = best_spans(starts, ends, allowed, SpanLimits(5, 4))
    wide = [torch.nn.functional.pad(each, (0, 22), value=9.0) for each in (starts, ends)]
    padded = best_spans(*wide, torch.nn.functional.pad(allowed, (0, 22)), SpanLimits(5, 4))
    for name, value in plain.items():
        assert torch.equal(value, padded[name])


def row(name, window, words, context_start=2):
    offsets = []
    for word, start in words:
        offsets.append([start, start + len(word)])
    return {"example_id": name, "window": window, "context_start": context_start, "offsets": np.array(offsets)}


def test_the_best_window_wins_whatever_the_order_of_rows():
    context = "red blue green grey"
    features = [
        row("a", 0, [("red", 0), ("blue", 4), ("green", 9)]),
        row("a", 1, [("green", 9), ("grey", 15)]),
        row("b", 0, [("red", 0)]),
    ]
    rows = {
        "span_scores": np.array([[1.0, 0.5], [2.0, 1.5], [-math.inf, -math.inf]]),
        "span_starts": np.array([[2.0, 4.0], [3.0, 2.0], [0.0, 0.0]]),
        "span_ends": np.array([[3.0, 4.0], [3.0, 2.0], [0.0, 0.0]]),
        "null_scores": np.array([0.1, -0.4, 3.0]),
    }
    contexts = {"a": context, "b": "red"}
    found = answers_by_example(features, rows, contexts, SpanLimits(3, 5))
    assert found["a"]["text"] == "grey"
    assert found["a"]["null_score"] == -0.4
    # "green" stands in both windows, with the better of its two scores, and once.
    assert [(one.text, one.score) for one in found["a"]["nbest"]] == [("grey", 2.0), ("green", 1.5), ("red blue", 1.0)]
    assert (found["b"]["text"], found["b"]["nbest"]) == ("", [])
    order = [2, 1, 0]
    shuffled = {name: values[order] for name, values in rows.items()}
    assert answers_by_example([features[i] for i in order], shuffled, contexts, SpanLimits(3, 5)) == found


def test_equal_scores_are_settled_by_place():
    features = [row("a", 1, [("two", 4)]), row("a", 0, [("one", 0)])]
    rows = {
        "span_scores": np.array([[1.0], [1.0]]),
        "span_starts": np.array([[2.0], [2.0]]),
        "span_ends": np.array([[2.0], [2.0]]),
        "null_scores": np.zeros(2),
    }
    assert answers_by_example(features, rows, {"a": "one two"}, SpanLimits(1, 5))["a"]["text"] == "one"


def test_limits_and_probabilities():
    shares = probabilities([1000.0, 1000.0, -1000.0])
    assert shares == [0.5, 0.5, 0.0]


def test_the_gold_answer_is_the_likeliest_of_those_that_a_row_holds():
    starts, ends = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    spans = torch.tensor([[[2, 3], [4, 4]], [[5, 5], [-1, -1]], [[-1, -1], [-1, -1]]])
    found = gold_log_probabilities(starts, ends, spans)

    def chance(row, first, last):
        shares = [np.exp(one[row].numpy()) / np.exp(one[row].numpy()).sum() for one in (starts, ends)]
        return math.log(shares[0][first] * shares[1][last])

    assert math.isclose(found[0], max(chance(0, 2, 3), chance(0, 4, 4)), rel_tol=1e-5)
    assert math.isclose(found[1], chance(1, 5, 5), rel_tol=1e-5)
    assert found[2] == -math.inf


def test_windows_of_a_question_share_one_log_probability():
    def window(name, number, *spans):
        return {"example_id": name, "window": number, "gold_spans": np.array(spans, dtype=np.int64).reshape(-1, 2)}

    features = [
        *(window("held twice", 0, (3, 4)), window("held twice", 1, (1, 2)), window("held twice", 2)),
        *(window("none is right", 0, (0, 0)), window("none is right", 1, (0, 0))),
        window("in no window", 0),
    ]
    found = gold_by_example(features, np.array([-3.0, -1.0, -math.inf, -0.1, -2.0, -math.inf]))
    assert found == {"held twice": -1.0, "none is right": -2.0, "in no window": None}
