"""The printed optimism of the best epoch: right on average where epochs differ by chance alone."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from finetuning.examples.recipe import EvaluationSet
from finetuning.loop.optimism import half_scores, selection_optimism, split_in_halves
from finetuning.run.command import _tell

EXAMPLES, EPOCHS, RUNS = 120, 6, 400
CHANCE = 0.5


def noise_run(generator, changing):
    """[epochs, examples]: right or wrong by chance; each epoch draws `changing` of the predictions anew."""
    right = [generator.random(EXAMPLES) < CHANCE]
    for _ in range(EPOCHS - 1):
        drawn = generator.random(EXAMPLES) < changing
        right.append(np.where(drawn, generator.random(EXAMPLES) < CHANCE, right[-1]))
    return np.array(right, dtype=float)


def estimate(right, evaluation_set):
    recipe = SimpleNamespace(
        metric="accuracy",
        score=lambda predictions, examples: {"accuracy": float(np.mean([predictions[name] for name in examples]))},
    )
    names = list(evaluation_set.examples)
    scores = [half_scores(recipe, evaluation_set, dict(zip(names, epoch, strict=True))) for epoch in right]
    first, second = split_in_halves(evaluation_set)
    return selection_optimism(right.mean(axis=1).max(), scores, (len(first), len(second)))


@pytest.mark.parametrize("changing", [1.0, 0.2])
def test_on_noise_it_is_the_true_optimism_on_average_and_never_negative(changing):
    generator = np.random.default_rng(7)
    evaluation_set = EvaluationSet([], {f"e{number}": None for number in range(EXAMPLES)})
    runs = [noise_run(generator, changing) for _ in range(RUNS)]
    true = np.array([right.mean(axis=1).max() - CHANCE for right in runs])
    found = np.array([estimate(right, evaluation_set) for right in runs])
    assert found.min() > -1e-12
    error = found - true
    assert abs(error.mean()) < 3 * error.std(ddof=1) / math.sqrt(RUNS)
    assert found.mean() > 0.01


def test_an_epoch_that_both_halves_prefer_costs_nothing():
    assert selection_optimism(0.8, [(0.5, 0.5), (0.7, 0.9), (0.6, 0.4)], (10, 10)) == pytest.approx(0.0)


def test_what_the_sums_round_away_is_not_told_as_optimism():
    assert selection_optimism(10.41450216450216, [(1.0, 1.0), (10.4145021645021, 10.4145021645022)], (177, 223)) == 0.0


def test_by_hand_with_halves_of_different_size():
    # The first half picks epoch 0, the second epoch 1: (10 * 0.6 + 30 * 0.5) / 40.
    assert selection_optimism(0.75, [(0.9, 0.5), (0.6, 0.8)], (10, 30)) == pytest.approx(0.75 - 0.525)


def test_without_anything_to_pick_from_there_is_none():
    assert selection_optimism(0.5, [(0.5, 0.5)], (10, 10)) is None
    assert selection_optimism(0.5, [(0.5, 0.5), None], (10, 10)) is None
    assert selection_optimism(0.5, [(0.5, 0.5), (math.nan, 0.5)], (10, 10)) is None
    few = EvaluationSet([], {f"e{number}": None for number in range(15)})
    assert half_scores(SimpleNamespace(metric="accuracy"), few, {}) is None


def test_questions_on_one_paragraph_stay_in_one_half():
    names = [f"q{number}" for number in range(200)]
    groups = {name: f"paragraph {number // 4}" for number, name in enumerate(names)}
    first, second = split_in_halves(EvaluationSet([], dict.fromkeys(names), groups=groups))
    assert sorted([*first, *second]) == sorted(names)
    assert not {groups[name] for name in first} & {groups[name] for name in second}
    assert 50 < len(first) < 150


@pytest.mark.parametrize(("optimism", "told"), [(0.0123, "about 0.0123 too high"), (-0.0001, "about 0 too high")])
def test_the_optimism_is_printed_where_the_scored_set_picked_the_epoch(capsys, tmp_path, optimism, told):
    recipe = SimpleNamespace(
        name="text", metric="accuracy", evaluation_sets={"validation": SimpleNamespace(labelled=True)}
    )
    result = SimpleNamespace(
        status="done", predictions={"validation": {}}, history=[{}, {}], selection_optimism=optimism
    )
    _tell(recipe, result, tmp_path, {})
    assert told in capsys.readouterr().out
    recipe.evaluation_sets["test"] = SimpleNamespace(labelled=True)
    result.predictions["test"] = {}
    _tell(recipe, result, tmp_path, {})
    assert "too high" not in capsys.readouterr().out
