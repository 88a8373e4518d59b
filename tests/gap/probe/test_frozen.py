"""The probe of an encoder: its features are the frozen hidden states, and nothing scored has a part in it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tiny_gap import WORDS, write_series, write_tasks

from finetuning.examples.recipe import EvaluationSet
from finetuning.model.checkpoint_files import load_config, load_tokenizer
from finetuning.model.heads import load_headed
from gap.probe.convex import fit
from gap.probe.frozen import FrozenEngine, collect, probe
from gap.tasks.kinds.task_data import RowOptions, TaskSpec
from gap.tasks.rows import SCORED, encode_task, held_out
from gap.tasks.specification import read_task

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tasks by name, each with its recipe under the tokenizer of a tiny model, and the model's folder."""
    folder = tmp_path_factory.mktemp("world")
    model = write_series(folder / "run", (100,)).parent / "series" / "annealed-100"
    specs = [*write_tasks(folder / "tasks"), TaskSpec("tags", "tokens", str(write_tags(folder / "tags")))]
    config, tokenizer = load_config(str(model)), load_tokenizer(str(model))
    data = {spec.name: read_task(spec, None) for spec in specs}
    recipes = {name: encode_task(own, tokenizer, config, RowOptions(32, 8)) for name, own in data.items()}
    return data, recipes, str(model)


def write_tags(folder):
    """Sentences of words in CoNLL-2003's columns; the tag of a word follows from the word."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for split, number in (("train", 40), ("test", 20)):
        words = [[str(word) for word in random.choice(WORDS[:16], size=6)] for _ in range(number)]
        lines = ["\n".join(f"{word} {('A', 'B')[WORDS.index(word) % 2]}" for word in own) for own in words]
        (folder / f"{split}.conll").write_text("\n\n".join(lines) + "\n")
    return folder


def engine_of(recipe, model, pooling="mean"):
    transformer = load_headed(model, recipe.head).fresh(0)
    return FrozenEngine(recipe, transformer, pooling=pooling, device=CPU, bf16=False)


def hidden_states(recipe, model, rows):
    """By hand: the encoder alone on one row at a time."""
    encoder = load_headed(model, recipe.head).fresh(0).base_model.eval()
    with torch.no_grad():
        return [encoder(input_ids=torch.tensor([row["input_ids"]])).last_hidden_state[0].double() for row in rows]


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_a_probe_of_texts_is_scikit_learns_on_pooled_hidden_states(world, pooling):
    data, recipes, model = world
    recipe, out = recipes["texts"], held_out(data["texts"], set(data["texts"].train))
    result = probe(recipe, engine_of(recipe, model, pooling), out, batch_rows=7)
    pooled = {"cls": lambda own: own[0], "mean": lambda own: own.mean(dim=0), "max": lambda own: own.amax(dim=0)}
    train, scored = (
        np.stack([pooled[pooling](own).numpy() for own in hidden_states(recipe, model, rows)])
        for rows in (recipe.train_features, recipe.evaluation_sets[SCORED].features)
    )
    scaler = StandardScaler().fit(train)
    labels = [row["label"] for row in recipe.train_features]
    exact = LogisticRegression(C=2 * result.strength, tol=1e-9, max_iter=5000).fit(scaler.transform(train), labels)
    wanted = exact.decision_function(scaler.transform(scored))
    logits = np.array([result.predictions[SCORED][name]["logits"] for name in recipe.evaluation_sets[SCORED].examples])
    assert logits[:, 1] - logits[:, 0] == pytest.approx(wanted, abs=2e-3, rel=2e-3)
    assert result.status == "done"
    assert result.converged


def test_a_probe_of_tags_reads_the_first_token_of_each_word(world):
    data, recipes, model = world
    recipe = recipes["tags"]
    items = collect(recipe, engine_of(recipe, model), recipe.train_features, batch_rows=5)
    rows = sorted(recipe.train_features, key=lambda row: -len(row["input_ids"]))
    states = hidden_states(recipe, model, rows)
    wanted = torch.cat([own[list(row["places"])] for own, row in zip(states, rows, strict=True)])
    assert torch.allclose(torch.cat(items.features).double(), wanted, atol=1e-5)
    result = probe(recipe, engine_of(recipe, model), held_out(data["tags"], set(data["tags"].train)), batch_rows=5)
    assert result.scores[SCORED]["accuracy"] > 0.95  # the tag follows from the word, and a random encoder keeps it


@pytest.mark.parametrize("task", ["questions", "choices"])
def test_spans_and_choices_lose_what_the_recipe_says(world, task):
    """The optimum of the grouped loss is one of the recipe's own loss, without a penalty to speak of."""
    _, recipes, model = world
    recipe = recipes[task]
    engine = engine_of(recipe, model)
    items = collect(recipe, engine, recipe.train_features, batch_rows=5)
    fitted = fit(items, recipe.head.num_outputs, 0.1)
    engine.set(fitted)
    batch = recipe.collate(recipe.train_features)
    outputs = engine(**{name: batch[name] for name in recipe.model_inputs})
    assert fitted.loss(items) == pytest.approx(float(recipe.measure(outputs, batch)["loss"].mean()), abs=1e-4)


@pytest.mark.parametrize("task", ["texts", "choices"])
def test_the_scored_examples_have_no_part_in_it(world, task):
    data, recipes, model = world
    out = held_out(data[task], set(data[task].train))
    recipe, other = recipes[task], copy.copy(recipes[task])
    scored = recipe.evaluation_sets[SCORED]
    other.evaluation_sets = {SCORED: EvaluationSet(scored.features[:1], dict(list(scored.examples.items())[:1]))}
    engines = engine_of(recipe, model), engine_of(other, model)
    for own, engine in zip((recipe, other), engines, strict=True):
        probe(own, engine, out, batch_rows=7)
    assert engines[0].outputs.weights.any()
    assert torch.equal(engines[0].outputs.weights, engines[1].outputs.weights)
    assert torch.equal(engines[0].outputs.bias, engines[1].outputs.bias)


def test_the_encoder_keeps_its_weights_and_has_no_dropout(world):
    data, recipes, model = world
    recipe, engine = recipes["texts"], engine_of(recipes["texts"], model)
    before = {name: value.clone() for name, value in engine.module.transformer.encoder.state_dict().items()}
    probe(recipe, engine, held_out(data["texts"], set(data["texts"].train)), batch_rows=7)
    after = engine.module.transformer.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not engine.module.training


def test_hidden_states_that_are_not_finite_leave_the_majority_and_a_reason(world):
    data, recipes, model = world
    recipe, engine = recipes["texts"], engine_of(recipes["texts"], model)
    with torch.no_grad():
        engine.module.transformer.encoder.get_input_embeddings().weight.fill_(torch.nan)
    result = probe(recipe, engine, held_out(data["texts"], set(data["texts"].train)), batch_rows=7)
    assert result.status == "not_finite"
    assert "NaN" in result.reason
    assert not engine.outputs.weights.any()


def test_one_label_in_training_is_a_collapse_with_its_reason(world):
    data, recipes, model = world
    recipe = copy.copy(recipes["texts"])
    recipe.train_features = [{**row, "label": 1} for row in recipe.train_features]
    result = probe(recipe, engine_of(recipe, model), held_out(data["texts"], set(data["texts"].train)), batch_rows=7)
    assert result.status == "collapsed"
    assert "same label" in result.reason
    assert {prediction["label"] for prediction in result.predictions[SCORED].values()} == {recipe.labels[1]}
    assert result.scores[SCORED]["accuracy"] == 0.5


def test_values_are_probed_by_a_regression(world):
    _, recipes, model = world
    recipe = copy.copy(recipes["texts"])
    recipe.labels, recipe.metrics, recipe.metric = (), ("pearson",), "pearson"
    number = {name: float(len(example.text) % 5) for name, example in recipe.examples["train"].items()}
    recipe.train_features = [{**row, "label": number[row["example_id"]]} for row in recipe.train_features]
    scored = recipe.evaluation_sets[SCORED]
    examples = {name: replace(example, label=float(len(example.text) % 5)) for name, example in scored.examples.items()}
    rows = [{**row, "label": examples[row["example_id"]].label} for row in scored.features]
    recipe.evaluation_sets = {SCORED: EvaluationSet(rows, examples)}
    result = probe(recipe, engine_of(recipe, model), set(list(number)[:5]), batch_rows=7)
    values = [prediction["value"] for prediction in result.predictions[SCORED].values()]
    assert np.isfinite(values).all()
    assert result.status == "done"
    assert abs(np.mean(values) - np.mean(list(number.values()))) < 1.5
