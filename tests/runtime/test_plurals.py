"""Counts in words."""

import pytest

from runtime.plurals import counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "task", "0 tasks"),
        (1, "task", "1 task"),
        (2, "search", "2 searches"),
        (1, "search", "1 search"),
        (12345, "example", "12,345 examples"),
        (3, "retry", "3 retries"),
        (3, "day", "3 days"),
        (2, "box", "2 boxes"),
        (1.0, "epoch", "1.0 epoch"),
        (3, "epoch", "3 epochs"),
    ],
)
def test_one_thing_is_singular_and_any_other_number_is_not(number, noun, text):
    assert counted(number, noun) == text


def test_the_digits_may_be_written_in_another_way():
    assert counted(1.0, "epoch", written="1") == "1 epoch"
    assert counted(0.5, "epoch", written="0.5") == "0.5 epochs"
