"""QA scores do not depend on batches, padding, order, or the path that the file takes."""

import json
import random

import pytest
import torch
from tiny_encoder import FAMILIES, tiny_model, tiny_tokenizer
from tiny_examples import WORDS, tiny_questions

from finetuning.examples.batches import batch_shape
from finetuning.examples.recipe import FinetuningOptions
from finetuning.loop.evaluation import evaluate
from finetuning.loop.training import open_engine
from finetuning.recipes.questions.recipe import QARecipe, QASettings, _nbest
from finetuning.recipes.questions.spans import Candidate, SpanLimits
from finetuning.recipes.questions.squad import Question
from finetuning.recipes.questions.windows import Windows


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Tiny models gain nothing from a second thread, and lose much on a busy machine."""
    monkeypatch.setattr("finetuning.loop.training.choose_device", lambda ranks: torch.device("cpu"))


TOKENIZER = tiny_tokenizer(WORDS)
OPTIONS = FinetuningOptions(report_to="none", bf16="false")
SETTINGS = QASettings(windows=Windows(32, 8), limits=SpanLimits(5, 6))


def engine_of(recipe, family="modernbert"):
    return open_engine(tiny_model(recipe, family, len(TOKENIZER), seed=3), OPTIONS, batch_shape(OPTIONS, 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_depend_on_neither_batch_size_nor_padding_nor_order(family):
    questions = tiny_questions(37, prefix="v")
    recipe = QARecipe({"validation": questions}, TOKENIZER, SETTINGS)
    engine = engine_of(recipe, family)
    first = evaluate(recipe, engine, recipe.evaluation_sets["validation"], batch_rows=64)
    assert len({one["text"] for one in first.predictions.values()}) > 5
    for batch_rows in (1, 5, 37):
        again = evaluate(recipe, engine, recipe.evaluation_sets["validation"], batch_rows=batch_rows)
        assert {name: one["text"] for name, one in again.predictions.items()} == {
            name: one["text"] for name, one in first.predictions.items()
        }
        assert again.scores == pytest.approx(first.scores, abs=1e-5)
    shuffled = random.Random(0).sample(questions, len(questions))
    other = QARecipe({"validation": shuffled}, TOKENIZER, SETTINGS)
    again = evaluate(other, engine, other.evaluation_sets["validation"], batch_rows=7)
    assert again.scores == pytest.approx(first.scores, abs=1e-5)


def test_the_validation_file_scores_the_same_through_the_test_path():
    questions = tiny_questions(37, prefix="v")
    blind = [Question(one.id, one.question, one.context) for one in questions]
    recipe = QARecipe({"validation": questions, "test": blind}, TOKENIZER, SETTINGS, unlabelled=["test"])
    engine = engine_of(recipe)
    validation = evaluate(recipe, engine, recipe.evaluation_sets["validation"], batch_rows=8)
    test = evaluate(recipe, engine, recipe.evaluation_sets["test"], batch_rows=8)
    assert test.scores == {}
    gold = {name: one.pop("gold_log_probability") for name, one in validation.predictions.items()}
    assert all(value < 0 for value in gold.values())
    assert test.predictions == validation.predictions
    examples = recipe.evaluation_sets["validation"].examples
    assert recipe.score(test.predictions, examples) == recipe.score(validation.predictions, examples)


def test_questions_without_an_answer_get_one_or_none_by_the_threshold():
    questions = [*tiny_questions(8, prefix="v"), Question("none", "what?", "red blue", ())]
    found = {}
    for threshold in (-1e9, 1e9):
        settings = QASettings(SETTINGS.windows, SETTINGS.limits, version_2=True, null_score_diff_threshold=threshold)
        recipe = QARecipe({"validation": questions}, TOKENIZER, settings)
        engine = engine_of(recipe)
        found[threshold] = evaluate(recipe, engine, recipe.evaluation_sets["validation"], batch_rows=8)
    never, always = found[-1e9], found[1e9]
    assert {one["text"] for one in never.predictions.values()} == {""}
    assert all(one["text"] for one in always.predictions.values())
    assert never.scores["NoAns_exact"] == 100.0
    assert always.scores["NoAns_exact"] == 0.0
    assert (
        never.scores["best_exact"] == always.scores["best_exact"] >= max(never.scores["exact"], always.scores["exact"])
    )
    examples = recipe.evaluation_sets["validation"].examples
    assert recipe.majority_score(examples) == pytest.approx(100 / 9)


def test_files(tmp_path):
    questions = tiny_questions(5, prefix="v")
    recipe = QARecipe({"validation": questions}, TOKENIZER, SETTINGS)
    found = evaluate(recipe, engine_of(recipe), recipe.evaluation_sets["validation"], batch_rows=8)
    recipe.write(found.predictions, recipe.evaluation_sets["validation"], tmp_path)
    texts = json.loads((tmp_path / "predictions.json").read_text("utf-8"))
    assert list(texts) == [one.id for one in questions]
    lines = (tmp_path / "prediction.csv").read_text("utf-8").splitlines()
    assert lines[0] == "id,answer"
    assert lines[1:] == [f"{name},{text}" for name, text in texts.items()]
    nbest = json.loads((tmp_path / "nbest_predictions.json").read_text("utf-8"))
    for name, candidates in nbest.items():
        assert candidates[0]["text"] == texts[name]
        assert sum(one["probability"] for one in candidates) == pytest.approx(1.0)
        assert len(candidates) <= 5


def test_chinese_answers_are_scored_as_in_cmrc():
    question = Question("a", "?", "北京市 很 大", ())
    recipe = QARecipe({"validation": [question]}, TOKENIZER, SETTINGS)
    answered = {"a": Question("a", "?", "北京市 很 大", tiny_answers("北京"))}
    assert recipe.score({"a": {"text": "北京市"}}, answered)["f1"] == pytest.approx(80.0)
    english = QARecipe({"validation": [question]}, TOKENIZER, QASettings(SETTINGS.windows, language="en"))
    assert english.score({"a": {"text": "北京市"}}, answered)["f1"] == 0.0


def tiny_answers(*texts):
    from finetuning.recipes.questions.squad import Answer

    return tuple(Answer(text, 0) for text in texts)


@pytest.mark.parametrize("version_2", [False, True])
def test_the_candidates_of_version_2_hold_no_answer_at_its_score(version_2):
    found = {"nbest": [Candidate("one", 3.0, 0, 3), Candidate("two", 1.0, 4, 7)], "null_score": 2.0}
    rows = _nbest(found, version_2=version_2)
    assert [row["text"] for row in rows] == (["one", "", "two"] if version_2 else ["one", "two"])
    assert sum(row["probability"] for row in rows) == pytest.approx(1.0)
