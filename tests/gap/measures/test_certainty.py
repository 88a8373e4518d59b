"""Loss and calibration under weights of the examples, and what is not known of some of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gap.measures.certainty import MEASURES, certainty_of
from gap.measures.weighted_metrics import tabulate_examples

RANDOM = np.random.default_rng(0)
NUM = 40
REPEATS = RANDOM.integers(0, 4, NUM)


def answers(seed: int) -> list[dict[str, Any]]:
    """Records of answers that are right or wrong."""
    random = np.random.default_rng(seed)
    return [
        {"score": float(random.random() < 0.6), "confidence": sure, "gold_log_probability": float(np.log(gold))}
        for sure, gold in random.uniform(0.05, 1.0, (NUM, 2)).tolist()
    ]


def sentences(seed: int) -> tuple[list[dict[str, Any]], list[list[tuple[float, bool, float]]]]:
    """Records of sentences, and their words: the confidence, whether it is right, the probability of the true tag."""
    random = np.random.default_rng(seed)
    words = [
        [(random.uniform(0.2, 1.0), bool(random.random() < 0.7), random.uniform(0.1, 1.0)) for _ in range(size)]
        for size in random.integers(0, 6, NUM)
    ]
    records = [
        {
            "score": 0.0,
            "rated_words": len(own),
            "gold_log_probability": float(np.sum(np.log([gold for _, _, gold in own]))),
            "overconfidence": float(sum(sure - right for sure, right, _ in own)),
            "squared_error": float(sum((sure - right) ** 2 for sure, right, _ in own)),
        }
        for own in words
    ]
    return records, words


def test_measures_of_answers_under_weights_are_those_of_repeated_examples() -> None:
    cells = [answers(seed) for seed in range(3)]
    found = certainty_of(cells, np.arange(NUM))
    assert list(found) == list(MEASURES)
    for number, records in enumerate(cells):
        again = [record for record, times in zip(records, REPEATS, strict=True) for _ in range(times)]
        over = np.array([record["confidence"] - record["score"] for record in again])
        expected = {
            "loss": -np.mean([record["gold_log_probability"] for record in again]),
            "brier_score": np.mean(over**2),
            "overconfidence": np.mean(over),
        }
        for name, value in expected.items():
            weighted = found[name].evaluate(REPEATS[None].astype(np.float32))[0, number]
            assert weighted == pytest.approx(value, abs=1e-6)
            assert found[name].num_examples == NUM


def test_measures_of_sentences_are_means_over_their_words() -> None:
    records, words = sentences(1)
    clusters = np.arange(NUM) // 2
    found = certainty_of([records], clusters)
    times = np.repeat(RANDOM.integers(0, 4, NUM // 2), 2)
    flat = [word for own, number in zip(words, times, strict=True) for word in own * int(number)]
    over = np.array([sure - right for sure, right, _ in flat])
    expected = (-np.mean(np.log([gold for _, _, gold in flat])), np.mean(over**2), np.mean(over))
    weights = times[::2][None].astype(np.float32)
    assert [found[name].evaluate(weights)[0, 0] for name in MEASURES] == pytest.approx(expected, abs=1e-6)


def test_an_example_that_one_cell_does_not_know_is_left_out_of_all() -> None:
    cells = [answers(seed) for seed in range(2)]
    del cells[1][0]["gold_log_probability"]
    found = certainty_of(cells, np.arange(NUM))
    assert (found["loss"].num_examples, found["brier_score"].num_examples) == (NUM - 1, NUM)
    expected = [-np.mean([record["gold_log_probability"] for record in records[1:]]) for records in cells]
    assert found["loss"].values == pytest.approx(expected, abs=1e-6)


def test_records_of_earlier_versions_have_no_measure_and_one_of_them_is_enough() -> None:
    new = {f"e{number}": {"id": f"e{number}", **record} for number, record in enumerate(answers(0))}
    old = {name: {"id": name, "score": record["score"]} for name, record in new.items()}
    assert set(tabulate_examples("accuracy", [new, new]).certainty) == set(MEASURES)
    assert tabulate_examples("accuracy", [new, old]).certainty == {}
