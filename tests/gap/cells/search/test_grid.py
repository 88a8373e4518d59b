"""The grid of a search: rates that follow the width, steps beyond an edge, and the bound on them."""

import random

import pytest

from gap.cells.search.grid import MOST_EXTENSIONS, Grid, rates_of_width


@pytest.mark.parametrize(
    ("width", "rates"),
    [(128, (2e-4, 6e-4, 1.8e-3)), (256, (1e-4, 3e-4, 9e-4)), (384, (6.7e-5, 2e-4, 6e-4)), (768, (3.3e-5, 1e-4, 3e-4))],
)
def test_the_rates_fall_with_the_width_and_given_ones_stay(width, rates):
    assert rates_of_width(width) == rates
    assert Grid((), (2.0, 4.0), 2).for_width(width) == Grid(rates, (2.0, 4.0), 2)
    assert Grid((5e-5,), (2.0,)).for_width(width) == Grid((5e-5,), (2.0,))
    assert Grid((), (2.0,)).for_width(width) == Grid(rates, (2.0,))


def tried(grid, *more):
    return [*grid.tries, *more]


def test_the_next_try_lies_one_step_beyond_the_edge_at_which_the_best_is():
    grid = Grid((3e-4, 1e-4, 9e-4), (2.0, 4.0), 2)  # in any order
    assert grid.beyond(tried(grid), (3e-4, 2.0)) is None  # inside: nothing to add
    assert grid.beyond(tried(grid), (9e-4, 2.0)) == (2.7e-3, 2.0)
    assert grid.beyond(tried(grid), (1e-4, 2.0)) == (pytest.approx(3.33e-5), 2.0)
    assert grid.beyond(tried(grid), (3e-4, 4.0)) == (3e-4, 8.0)
    assert grid.beyond(tried(grid), (9e-4, 4.0)) == (2.7e-3, 4.0)  # the rate first
    assert grid.beyond(tried(grid, (2.7e-3, 4.0)), (9e-4, 4.0)) == (9e-4, 8.0)  # no longer at the edge of the rates
    assert grid.beyond(tried(grid, (2.7e-3, 2.0)), (2.7e-3, 2.0)) == (8.1e-3, 2.0)
    both = tried(grid, (2.7e-3, 2.0), (8.1e-3, 2.0))
    assert grid.beyond(both, (8.1e-3, 2.0)) is None  # the bound
    assert grid.edges(both, (8.1e-3, 2.0)) == ["highest learning rate"]
    assert grid.edges(both, (1e-4, 4.0)) == ["lowest learning rate", "largest number of epochs"]
    assert grid.edges(both, (2.7e-3, 2.0)) == []  # fewer epochs than the fewest are no edge


def test_a_grid_of_one_value_has_no_edges_and_steps_are_those_of_the_last_two():
    one = Grid((1e-3,), (2.0, 3.0), 2)
    assert one.beyond(tried(one), (1e-3, 2.0)) is None
    assert one.beyond(tried(one), (1e-3, 3.0)) == (1e-3, 4.5)
    assert one.edges(tried(one), (1e-3, 3.0)) == ["largest number of epochs"]
    close = Grid((1e-3, 1.0001e-3), (1.0,), 1)
    following = close.beyond(tried(close), (1.0001e-3, 1.0))
    assert following is not None
    assert following[0] > 1.0001e-3  # although three digits would be the value itself
    assert Grid((1e-3, 2e-3), (1.0,), 0).beyond([(1e-3, 1.0), (2e-3, 1.0)], (2e-3, 1.0)) is None


def test_no_search_goes_further_than_the_bound_that_is_announced():
    """Whatever the scores are: the tries and the epochs in all are at most what `further` says before the first."""
    generator, most = random.Random(0), 0
    for _ in range(400):
        rates = tuple(10 ** generator.uniform(-5, -2) for _ in range(generator.randint(1, 4)))
        epochs = tuple(float(value) for value in generator.sample(range(1, 9), generator.randint(1, 3)))
        grid = Grid(rates, epochs, generator.randint(0, 3))
        slope = generator.uniform(-1, 1), generator.uniform(-1, 1), generator.uniform(0, 1)
        pairs, scores = list(grid.tries), {}
        bound = grid.further(pairs)
        while True:
            for pair in pairs:
                scores.setdefault(pair, slope[0] * pair[0] * 1e3 + slope[1] * pair[1] + slope[2] * generator.random())
            following = grid.beyond(pairs, max(pairs, key=scores.__getitem__))
            if following is None:
                break
            assert following not in pairs
            left = grid.further(pairs)
            pairs.append(following)
            assert len(grid.further(pairs)) < len(left)
        added = pairs[len(grid.tries) :]
        assert len(added) <= len(bound)
        assert sum(length for _, length in added) <= sum(bound) * (1 + 1e-9)
        most = max(most, len(added))
    assert most >= 4


def test_grids_that_no_search_can_follow_are_refused():
    for wrong in (-1, MOST_EXTENSIONS + 1):
        with pytest.raises(ValueError, match=f"{wrong} extensions of a grid: 0 to"):
            Grid((1e-3,), (1.0,), wrong)
