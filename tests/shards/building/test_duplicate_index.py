"""The index of duplicates: the most similar document is found among many, in any order of insertion."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.building.duplicate_index import DOCUMENTS_PER_KEY, DuplicateIndex
from shards.building.minhash import band_keys, minhash_signatures

LENGTH = 200


def opened(path: Path | str = ":memory:", **changes: Any) -> DuplicateIndex:
    options = {"exact": True, "near": "drop", "threshold": 0.8, "memory_mb": 64} | changes
    return DuplicateIndex(sqlite3.connect(path, isolation_level=None), **options)


def templated(own: int, number: int, seed: int = 0) -> np.ndarray:
    """Documents of one template [number, 200]; the first `own` tokens are each document's own."""
    rng = np.random.default_rng(seed)
    documents = np.tile(rng.integers(0, 30_000, LENGTH), (number, 1))
    documents[:, :own] = rng.integers(0, 30_000, (number, own))
    return documents.astype(np.uint16)


def admit(index: DuplicateIndex, documents: np.ndarray, first: int = 0, held_out: bool = False) -> list[str | None]:
    signatures = minhash_signatures(documents.reshape(-1), np.full(len(documents), documents.shape[1]))
    bands = band_keys(signatures).tolist()
    return [
        index.admit((first + number).to_bytes(16, "big"), held_out, signatures[number], bands[number])
        for number in range(len(documents))
    ]


@pytest.mark.parametrize("own", [38, 42, 46, 50])
@pytest.mark.parametrize("near", ["drop", "separate"])
def test_a_copy_with_one_word_changed_is_found_among_many_pages_of_one_template(own, near):
    documents = templated(own, 600)
    copies = documents[300::10].copy()
    copies[:, 100] = np.arange(len(copies))
    index = opened(near=near)
    originals = admit(index, documents)[300::10]
    found = admit(index, copies, first=1_000, held_out=near == "separate")
    missed = [number for number, (a, b) in enumerate(zip(originals, found, strict=True)) if a is None and b is None]
    assert originals.count(None) > 20
    assert missed == []


def test_a_key_keeps_a_bounded_number_of_documents():
    index = opened(memory_mb=1, near="drop", threshold=1.0)
    documents = templated(40, 1_200)
    admit(index, documents[:600])
    index.put_in()
    admit(index, documents[600:], first=1_000)
    index.put_in()
    longest = index.database.execute("SELECT MAX(LENGTH(documents)) FROM keys").fetchone()[0]
    assert longest == 5 * DOCUMENTS_PER_KEY


@pytest.mark.parametrize("near", ["drop", "separate"])
@pytest.mark.parametrize("put_in_every", [7, 1_000])
def test_a_document_that_was_looked_for_under_a_full_key_is_told(near, put_in_every):
    index, told = opened(near=near, threshold=2.0), []  # so that nothing is similar enough
    for number, document in enumerate(templated(0, DOCUMENTS_PER_KEY + 20)):
        admit(index, document[None], first=number)
        told.append(index.met_full_key)
        if number % put_in_every == 0:
            index.put_in()
    assert told == [near == "drop" and number >= DOCUMENTS_PER_KEY for number in range(len(told))]
    admit(index, templated(0, 1), first=900, held_out=True)
    assert index.met_full_key
    admit(index, templated(0, 1, seed=4), first=950)
    assert not index.met_full_key


def test_when_keys_are_put_in_and_restarts_do_not_change_an_answer(tmp_path):
    documents = np.concatenate([templated(45, 300), templated(8, 60, seed=1), templated(45, 300)[::3]])
    sides = [False, True, False, True, False, False]

    def answers(path: Path, memory_mb: int, restarts: bool) -> list[str | None]:
        index, found = opened(path, memory_mb=memory_mb, near="separate"), []
        index.database.execute("BEGIN")
        for piece, held_out in enumerate(sides):
            part = documents[piece * 76 : (piece + 1) * 76]
            found += admit(index, part, first=piece * 76, held_out=held_out)
            index.database.execute("COMMIT")
            if restarts:
                index.database.execute("BEGIN")
                admit(index, templated(150, 30, seed=9), first=5_000)  # never committed
                index.database.close()
                index = opened(path, memory_mb=memory_mb, near="separate")
            index.database.execute("BEGIN")
        return found

    plain = answers(tmp_path / "plain", 64, restarts=False)
    assert 0 < plain.count(None) < len(plain)
    assert answers(tmp_path / "restarted", 64, restarts=True) == plain
    assert answers(tmp_path / "small", 1, restarts=False) == plain
    assert answers(tmp_path / "both", 1, restarts=True) == plain


def test_exact_copies_stay_when_they_are_not_to_be_dropped():
    documents = templated(200, 5)
    index = opened(exact=False)
    assert admit(index, documents) == [None] * 5
    assert admit(index, documents) == [None] * 5
    assert index.documents == 5
    assert admit(index, documents, first=100) == ["near_duplicate"] * 5
