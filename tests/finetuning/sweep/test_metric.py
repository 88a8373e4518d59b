"""The metric of a sweep: its names, as the recipes give them, and which way is better."""

import numpy as np
import pytest

from finetuning.recipes.texts.metrics import classification_metrics
from finetuning.run.option_checks import RECIPES
from finetuning.sweep.metric import known_metrics, lower_is_better, require_given_metric, require_known_metric


def test_losses_and_calibration_errors_are_better_when_lower():
    assert [lower_is_better(f"eval_{name}") for name in ("loss", "expected_calibration_error", "absolute_error")] == [
        True
    ] * 3
    assert not any(lower_is_better(f"eval_{name}") for name in ("accuracy", "f1", "exact_match", "pearson"))


def test_known_names_are_those_that_the_scoring_functions_give():
    assert {"exact_match", "f1", "HasAns_f1", "best_f1", "loss"} <= set(known_metrics("qa"))
    assert {"matthews_correlation", "pearson", "spearmanr", "combined_score"} <= set(known_metrics("glue"))
    assert len(classification_metrics(np.eye(3), [0, 1, 2])) == len(set(known_metrics("classification")))
    assert all("loss" in known_metrics(recipe) for recipe in RECIPES)


@pytest.mark.parametrize(
    ("metric", "recipe", "nearest"),
    [("eval_acuracy", "classification", "eval_accuracy"), ("accuracy", "classification", "eval_accuracy"),
     ("test_f1", "qa", "eval_"), ("eval_spearman", "glue", "eval_spearmanr"), (3, "qa", "eval_exact")],
)  # fmt: skip
def test_other_names_are_refused_with_the_nearest(metric, recipe, nearest):
    with pytest.raises(ValueError, match=f"metric is {metric!r}.*{nearest}"):
        require_known_metric(metric, recipe, "sweep.yaml")


def test_right_names_pass():
    assert require_known_metric(None, "qa", "") is None
    for metric in ("eval_mismatched_accuracy", "eval_accuracy_unseen", "eval_loss"):
        assert require_known_metric(metric, "glue", "") == metric


def test_the_results_of_a_finished_cell_must_have_it():
    require_given_metric("eval_f1", {"eval_f1": None, "seconds": 1}, "cell")
    require_given_metric(None, {}, "cell")
    with pytest.raises(ValueError, match="cell: a finished cell has no eval_f1: did you mean eval_macro_f1"):
        require_given_metric("eval_f1", ["eval_macro_f1", "f1"], "cell")
