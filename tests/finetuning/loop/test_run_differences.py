"""How the options in which two runs differ are worded."""

from finetuning.loop.run_state import differences


def test_only_what_differs_is_named_and_a_digest_is_cut():
    there = {"head": {"task": "tags", "dropout": None, "pooling": "cls"}, "weights": "a" * 64, "seed": 1}
    here = {"head": {"task": "tags", "dropout": None, "pooling": "mean"}, "weights": "b" * 64, "seed": 1}
    said = differences(there, here)
    assert said == f"head pooling: 'cls' there, 'mean' here; weights: {'a' * 12}... there, {'b' * 12}... here"


def test_a_group_that_one_run_lacks_is_shown_whole():
    assert differences({"head": None}, {"head": {"task": "tags"}}) == "head: None there, {'task': 'tags'} here"
