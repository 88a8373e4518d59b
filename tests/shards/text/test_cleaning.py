"""Cleaning counts what it does; of duplicates the first stays, however the index is used."""

from __future__ import annotations

import sqlite3
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.building.duplicate_index import DuplicateIndex
from shards.building.minhash import band_keys, document_digest, is_held_out, minhash_signatures
from shards.text.cleaning import Cleaning


def clean(text: str, **steps: object) -> tuple[str | None, dict[str, int], dict[str, int]]:
    changed, dropped = Counter[str](), Counter[str]()
    cleaned = Cleaning(**steps).clean(text, changed, dropped)  # type: ignore[arg-type]
    return cleaned, {k: v for k, v in changed.items() if v}, dict(dropped)


@pytest.mark.parametrize(
    ("text", "steps", "cleaned", "changed", "dropped"),
    [
        ("  plain  ", {}, "plain", {}, {}),
        ("", {}, None, {}, {"empty": 1}),
        (" \n\t\u3000", {}, None, {}, {"empty": 1}),
        ("abc", {"min_characters": 4}, None, {}, {"too_short": 1}),
        ("abcd", {"min_characters": 4}, "abcd", {}, {}),
        ("cafe\u0301", {}, "caf\u00e9", {"nfc": 1}, {}),
        ("cafe\u0301", {"nfc": False}, "cafe\u0301", {}, {}),
        ("a &lt; b", {"html_entities": True}, "a < b", {"html_entities": 1}, {}),
        ("a &lt; b", {}, "a &lt; b", {}, {}),
        ("Smith & Sons", {"html_entities": True}, "Smith & Sons", {}, {}),
        ("e&#769;", {"html_entities": True}, "\u00e9", {"html_entities": 1, "nfc": 1}, {}),
    ],
)
def test_each_step_is_an_option_and_counted(text, steps, cleaned, changed, dropped):
    assert clean(text, **steps) == (cleaned, changed, dropped)


@given(st.text())
def test_cleaning_twice_changes_nothing_more(text):
    once, _, _ = clean(text)
    if once is not None:
        assert clean(once) == (once, {}, {})


@given(st.integers(0, 1000))
def test_the_side_of_a_document_only_moves_from_training_to_validation_when_the_fraction_grows(number):
    digest = document_digest(f"document {number}")
    sides = [is_held_out(digest, fraction) for fraction in (0.0, 0.01, 0.1, 0.5, 1.0)]
    assert sides == sorted(sides)
    assert not sides[0]
    assert sides[-1]


def test_the_held_out_share_is_the_one_asked_for():
    held = sum(is_held_out(document_digest(str(number)), 0.1) for number in range(10_000))
    assert 900 < held < 1_100


def overlapping(rng: np.random.Generator, shared: int, length: int = 1_000) -> tuple[np.ndarray, np.ndarray]:
    first = rng.integers(0, 30_000, length)
    second = first.copy()
    second[shared:] = rng.integers(0, 30_000, length - shared)
    return first, second


def test_minhash_estimates_the_jaccard_similarity_of_shingles():
    rng = np.random.default_rng(0)
    errors = []
    for shared in (0, 500, 800, 900, 1_000):
        first, second = overlapping(rng, shared)
        sets = [{tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)} for tokens in (first, second)]
        truth = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        signatures = minhash_signatures(np.concatenate([first, second]).astype(np.uint16), np.array([1_000, 1_000]))
        errors.append(abs(np.mean(signatures[0] == signatures[1]) - truth))
    assert max(errors) < 0.15  # 3.4 standard errors at 128 permutations


def test_signatures_do_not_depend_on_the_neighbours_of_a_document():
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, 9_000, length).astype(np.uint16) for length in (300, 4, 5, 1, 70)]
    together = minhash_signatures(np.concatenate(documents), np.array([len(tokens) for tokens in documents]))
    alone = [minhash_signatures(tokens, np.array([len(tokens)]))[0] for tokens in documents]
    np.testing.assert_array_equal(together, np.stack(alone))
    assert not together[1].any()
    assert together[2].any()


def admitted(documents: list[np.ndarray], near: str, sides: list[bool]) -> list[str | None]:
    index = DuplicateIndex(sqlite3.connect(":memory:"), exact=True, near=near, threshold=0.8)  # type: ignore[arg-type]
    signatures = minhash_signatures(np.concatenate(documents), np.array([len(tokens) for tokens in documents]))
    bands = band_keys(signatures).tolist()
    return [
        index.admit(tokens.tobytes()[:16], side, signature, keys)
        for tokens, side, signature, keys in zip(documents, sides, signatures, bands, strict=True)
    ]


def test_of_duplicates_the_first_stays_and_near_ones_never_lie_on_both_sides():
    rng = np.random.default_rng(2)
    first, near = overlapping(rng, 960)
    near[:20] = rng.integers(0, 30_000, 20)  # another digest
    far, other = overlapping(rng, 400)
    documents = [first, first.copy(), near, far, other]
    sides = [False, False, True, False, True]
    assert admitted(documents, "drop", sides) == [None, "duplicate", "near_duplicate", None, "duplicate"]
    assert admitted(documents[:4], "separate", sides[:4]) == [None, "duplicate", "near_duplicate_across_split", None]
    assert admitted(documents[:4], "separate", [False] * 4) == [None, "duplicate", None, None]
    assert admitted(documents[:4], "ignore", sides[:4]) == [None, "duplicate", None, None]
    assert admitted(documents[2::-1], "drop", sides[:3]) == [None, "near_duplicate", "near_duplicate"]
