"""`--budgets`: a study of some budgets of a series."""

import pytest

from gap.cells.plan import CellSource
from gap.study.sources import of_budgets

SOURCES = [
    CellSource("s/raw-0", "raw", 0, 3),
    *(CellSource(f"s/annealed-{budget}", "annealed", budget, 3) for budget in (1000, 2000, 4000)),
    CellSource("s/raw-4000", "raw", 4000, 3),
    CellSource("own", "annealed", 2000, 4, control="independent_run"),
]


def test_only_the_named_budgets_are_run_beside_scratch_also_of_controls():
    kept = of_budgets(SOURCES[:-1], "4e3")
    assert [source.path for source in kept] == ["s/raw-0", "s/annealed-4000", "s/raw-4000"]
    both = [*SOURCES, CellSource("own", "annealed", 1000, 4, control="independent_run")]
    kept = of_budgets(both, "2e3,4e3")
    assert [source.budget_tokens for source in kept if source.control] == [2000]
    assert of_budgets(SOURCES, None) == SOURCES


def test_a_run_for_a_budget_that_is_not_chosen_has_no_branch_to_compare_with():
    with pytest.raises(ValueError, match=r"the run for one budget alone has 2,000, .*: name that budget as well"):
        of_budgets(SOURCES, "4e3")


@pytest.mark.parametrize("budgets", ["3000", "1000,3000"])
def test_a_budget_that_is_not_there_is_named_with_those_that_are(budgets):
    with pytest.raises(ValueError, match="3,000 is not a budget; use 1,000, 2,000, 4,000"):
        of_budgets(SOURCES, budgets)
