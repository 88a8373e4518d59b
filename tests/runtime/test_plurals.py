"""Counts in words."""

import pytest

from runtime.plurals import amount_text, counted


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


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (384, "384"),
        (62_500.0, "62,500"),
        (2.4e6, "2,400,000"),
        (100 / 3, "33.33"),
        (3.2e17, "3.2e+17"),
    ],
)
def test_budgets_have_their_digits_and_flops_an_exponent(amount, text):
    assert amount_text(amount) == text
