"""Records of a folder and of a store: whichever went on is kept, on every machine."""

import os

import pytest

from runtime.stores.records import RecordCopies, mirrored_records
from runtime.stores.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def scores(tmp_path):
    """scores.jsonl of this machine."""
    path = tmp_path / "machine" / "scores.jsonl"
    path.parent.mkdir()
    return path


def lines(*numbers):
    return "".join(f'{{"score": {number}}}\n' for number in numbers)


def follow(store, scores):
    """What a command does that has nothing left to compute."""
    with mirrored_records(str(store), scores.parent, wait_minutes=1, leave_out=lambda name: False):
        pass


@pytest.mark.parametrize(
    ("ours", "theirs", "kept"),
    [
        (lines(1, 2), lines(1, 2, 3), lines(1, 2, 3)),
        (lines(1, 2) + '{"sco', lines(1, 2, 3), lines(1, 2, 3)),  # killed while it wrote
        (lines(1, 2, 3), lines(1, 2), lines(1, 2, 3)),
        (lines(1, 2, 3), lines(1, 2) + '{"sc', lines(1, 2, 3)),
        ("", lines(1), lines(1)),
    ],
    ids=["the store's", "the store's, after a torn line", "ours", "ours, after a torn line", "of nothing"],
)
def test_the_scores_that_go_on_are_kept_here_and_in_the_store(store, scores, ours, theirs, kept):
    scores.write_text(ours)
    store.write("scores.jsonl", theirs.encode())
    follow(store, scores)
    assert scores.read_text() == kept
    assert store.read("scores.jsonl", 1000).decode() == kept
    assert [path.name for path in scores.parent.iterdir() if path.name.startswith(".")] == []


def test_scores_that_went_different_ways_are_refused_and_both_stay(store, scores):
    scores.write_text(lines(1, 2, 4))
    store.write("scores.jsonl", lines(1, 2, 3).encode())
    store.write("new.json", b"{}")
    with pytest.raises(ValueError, match=r"scores\.jsonl and .*store/scores\.jsonl went different ways: move one away"):
        follow(store, scores)
    assert scores.read_text() == lines(1, 2, 4)
    assert store.read("scores.jsonl", 1000).decode() == lines(1, 2, 3)
    assert not (scores.parent / "new.json").exists()


def test_a_journal_which_is_cut_back_at_the_start_is_ours(store, scores):
    journal = scores.with_name("journal.jsonl")
    journal.write_text(lines(1, 4))
    store.write("journal.jsonl", lines(1, 2, 3).encode())
    records = RecordCopies(store, scores.parent, lambda name: False)
    assert records.restore(store.sizes()) == 0
    assert journal.read_text() == lines(1, 4)


def test_a_folder_that_is_deleted_during_a_pass_stops_it_not(store, scores, monkeypatch):
    """A checkpoint that the run needs no more."""
    scores.write_text(lines(1))
    doomed = scores.with_name("checkpoint")
    doomed.mkdir()
    scandir = os.scandir

    def racing(place):
        if str(place) == str(doomed) and doomed.exists():
            doomed.rmdir()
        return scandir(place)

    monkeypatch.setattr(os, "scandir", racing)
    RecordCopies(store, scores.parent, lambda name: False).upload()
    assert not doomed.exists()
    assert list(store.sizes()) == ["scores.jsonl"]
