"""What a recipe trains and leaves: the classes of `transformers`, with nothing missing, or a head of our own."""

import csv
import json
import random
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_encoder import save_tiny_model, tiny_config, tiny_tokenizer
from tiny_examples import COLOURS, THINGS, WORDS, tiny_choices, tiny_questions, tiny_sentences
from transformers import AutoConfig, AutoModelForMaskedLM, DistilBertConfig, MPNetConfig

from finetuning import classification, load, multiple_choice, qa, token_classification
from finetuning.examples.batches import batch_shape
from finetuning.examples.recipe import FinetuningOptions
from finetuning.loop.training import open_engine
from finetuning.model.checkpoint_files import load_tokenizer
from finetuning.model.heads import CHOICE, CLASSIFICATION, SPANS, TAGS, Head, OwnHead, load_headed, pool, random_headed
from finetuning.recipes.questions.recipe import QARecipe, QASettings
from finetuning.recipes.questions.windows import Windows
from finetuning.run.saved_model import RECIPE_NAME, live_proof, save_model
from launch import predict
from pretraining.engines.engine import full_weights
from pretraining.publishing.export import ExportError

FAMILIES = ("bert", "modernbert", "roberta")
HEADS = (Head(CLASSIFICATION, 2, ("bad", "good")), Head(SPANS, 2), Head(CHOICE, 1), Head(TAGS, 3, ("O", "B-x", "I-x")))


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setattr("finetuning.loop.training.choose_device", lambda ranks: torch.device("cpu"))


def parameters(model):
    return dict(model.named_parameters())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.task)
def test_body_from_the_checkpoint_head_from_the_seed(tmp_path, family, head):
    source = save_tiny_model(tmp_path, family, WORDS)
    pretrained, scratch = (load_headed(source, head, from_scratch=scratch, seed=3) for scratch in (False, True))
    assert type(pretrained.transformer).__name__ == type(scratch.transformer).__name__
    stored = load_file(tmp_path / "model.safetensors")
    names = parameters(pretrained.transformer)
    assert set(pretrained.drawn) == set(names) - set(stored)
    assert set(pretrained.drawn) <= set(scratch.drawn)
    assert all(torch.equal(names[name], stored[name]) for name in set(names) & set(stored))
    pretrained.draw(5), scratch.draw(5)
    for name in pretrained.drawn:
        assert torch.equal(names[name], parameters(scratch.transformer)[name])
    again = parameters(load_headed(source, head, seed=3).fresh(6))
    matrices = [name for name in pretrained.drawn if names[name].dim() == 2]
    assert matrices
    assert all(not torch.equal(again[name], names[name]) for name in matrices)


def test_what_a_masked_language_model_has_of_the_head_is_kept_but_never_the_last_layer(tmp_path):
    """ModernBERT's prediction head is the MLM's; BERT's pooler is in no MLM; a classifier is drawn anew."""
    for family, drawn in (("modernbert", {"classifier"}), ("bert", {"bert.pooler.dense", "classifier"})):
        AutoModelForMaskedLM.from_config(tiny_config(family, 30)).save_pretrained(tmp_path / family)
        headed = load_headed(str(tmp_path / family), HEADS[0])
        assert {name.rpartition(".")[0] for name in headed.drawn} == drawn
        assert all(layer in headed.sentence(1) for layer in drawn)
        headed.draw(1).save_pretrained(tmp_path / f"tuned-{family}")
        tuned = load_headed(str(tmp_path / f"tuned-{family}"), HEADS[0])
        assert {name.rpartition(".")[0] for name in tuned.drawn} == {"classifier"}
        assert load_headed(str(tmp_path / f"tuned-{family}"), HEADS[0], keep_head=True).drawn == ()
        other = Head(CLASSIFICATION, 3, ("a", "b", "c"))
        assert {name.rpartition(".")[0] for name in load_headed(str(tmp_path / f"tuned-{family}"), other).drawn} == {
            "classifier"
        }


def test_configuration_says_labels_problem_type_pooling_and_dropout(tmp_path):
    head = Head(CLASSIFICATION, 2, ("bad", "good"), pooling="mean", dropout=0.25)
    config = random_headed(tiny_config("modernbert", 30), head).transformer.config
    assert (config.num_labels, config.id2label, config.label2id) == (2, {0: "bad", 1: "good"}, {"bad": 0, "good": 1})
    assert (config.problem_type, config.classifier_pooling) == ("single_label_classification", "mean")
    model = random_headed(tiny_config("bert", 30), Head(CLASSIFICATION, 1, dropout=0.25)).transformer
    assert (model.config.problem_type, model.config.classifier_dropout, model.dropout.p) == ("regression", 0.25, 0.25)
    shape = {"vocab_size": 30, "dim": 16, "n_heads": 2, "n_layers": 1, "hidden_dim": 32}
    assert random_headed(DistilBertConfig(**shape), Head(CLASSIFICATION, 2, dropout=0.25)).transformer.dropout.p == 0.25
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    rem = AutoConfig.for_model("rembert", **small, vocab_size=20, input_embedding_size=8, output_embedding_size=8)
    assert random_headed(rem, Head(CLASSIFICATION, 2, dropout=0.25)).transformer.dropout.p == 0.25
    with pytest.raises(ValueError, match=r"--head_dropout 0\.25: the head of"):
        Head(CLASSIFICATION, 2, dropout=0.25).configured(MPNetConfig())


@pytest.mark.parametrize(("family", "pooling", "own"), [
    ("bert", None, False), ("bert", "cls", False), ("bert", "mean", True), ("bert", "max", True),
    ("modernbert", "cls", False), ("modernbert", "mean", False), ("modernbert", "max", True), ("roberta", "mean", True),
])  # fmt: skip
def test_poolings_that_no_class_has_are_our_own_and_padding_changes_no_logit(family, pooling, own):
    headed = random_headed(tiny_config(family, 30), Head(CLASSIFICATION, 3, ("a", "b", "c"), pooling))
    model = headed.draw(1).eval()
    assert isinstance(model, OwnHead) is own
    assert ("from finetuning import load" in headed.sentence(1)) is own
    ids = torch.tensor([[2, 7, 8, 9, 3]])
    padded = torch.nn.functional.pad(ids, (0, 6))
    with torch.no_grad():
        short, long = model(ids, torch.ones_like(ids)).logits, model(padded, (padded != 0).long()).logits
    assert torch.allclose(short, long, atol=1e-5)


def test_a_save_that_is_not_the_live_model_leaves_nothing(tmp_path):
    tokenizer, options = tiny_tokenizer(WORDS), FinetuningOptions(report_to="none", bf16="false")
    recipe = QARecipe({"validation": tiny_questions(5)}, tokenizer, QASettings(Windows(32, 8)))
    headed = random_headed(tiny_config("bert", len(tokenizer)), recipe.head)
    model = recipe.build_model(headed.draw(1))
    engine = open_engine(model, options, batch_shape(options, 1))
    proof, weights = live_proof(recipe, engine, bf16=False), full_weights(engine)
    arguments = {"recipe": recipe, "tokenizer": tokenizer, "proof": proof}
    save_model(weights, model, tmp_path / "best", **arguments)
    before = (tmp_path / "best" / "model.safetensors").read_bytes()
    changed = {name: tensor * (1.5 if name == "qa_outputs.weight" else 1.0) for name, tensor in weights.items()}
    with pytest.raises(ExportError, match="does not give the live model's"):
        save_model(changed, model, tmp_path / "best", **arguments)
    missing = {name: tensor for name, tensor in weights.items() if name != "qa_outputs.bias"}
    with pytest.raises(ExportError, match=r"cannot be read back completely: qa_outputs\.bias"):
        save_model(missing, model, tmp_path / "best", **arguments)
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


READ = """
import json, sys
sys.path.append(sys.argv[4])  # the installed packages, without what an editable installation adds
for name in ("finetuning", "pretraining", "shards", "gap"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} can be imported: this shows nothing")
import torch
from transformers import AutoModelForMultipleChoice, AutoModelForQuestionAnswering, AutoModelForSequenceClassification
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline
from transformers.utils import logging
logging.disable_progress_bar()
torch.set_num_threads(1)

def choose(model, tokenizer, row):
    seconds = [row["question"] + " " + choice for choice in row["choices"]]
    pairs = tokenizer([row["context"]] * len(seconds), seconds, padding=True, return_tensors="pt")
    return int(model(**{name: rows[None] for name, rows in pairs.items()}).logits.argmax())

def answer(model, tokenizer, row):
    inputs = tokenizer(row["question"], row["context"], return_tensors="pt", return_offsets_mapping=True)
    places, offsets = inputs.sequence_ids(0), inputs.pop("offset_mapping")[0].tolist()
    out = model(**inputs)
    spans = [(float(out.start_logits[0, i] + out.end_logits[0, j]), offsets[i][0], offsets[j][1])
             for i, first in enumerate(places) for j in range(i, min(len(places), i + 30))
             if first == 1 and places[j] == 1]
    score, start, end = max(spans, key=lambda span: span[0])
    return row["context"][start:end]

def classify(model, tokenizer, row):
    label = model.config.id2label[int(model(**tokenizer(row["text"], return_tensors="pt")).logits.argmax())]
    assert pipeline("text-classification", model=model, tokenizer=tokenizer)(row["text"])[0]["label"] == label
    return label

def tag(model, tokenizer, row):
    inputs = tokenizer(row["tokens"], is_split_into_words=True, return_tensors="pt")
    words, best = inputs.word_ids(0), model(**inputs).logits[0].argmax(-1)
    tags = [model.config.id2label[int(best[words.index(word)])] for word in range(len(row["tokens"]))]
    tagger = pipeline("token-classification", model=model, tokenizer=tokenizer, ignore_labels=[])
    assert [word["entity"] for word in tagger(" ".join(row["tokens"]))] == tags
    return tags

runs, rows = json.load(open(sys.argv[1])), json.load(open(sys.argv[2]))
kinds = {"classification": (AutoModelForSequenceClassification, classify),
         "qa": (AutoModelForQuestionAnswering, answer), "multiple_choice": (AutoModelForMultipleChoice, choose),
         "token_classification": (AutoModelForTokenClassification, tag)}
found = {}
for directory, task in runs.items():
    auto, predict = kinds[task]
    model, report = auto.from_pretrained(directory, output_loading_info=True)
    assert not any(report.values()), report
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert tokenizer.model_max_length == 128, tokenizer.model_max_length
    with torch.no_grad():
        found[directory] = {row["id"]: predict(model.eval(), tokenizer, row) for row in rows[task]}
json.dump(found, open(sys.argv[3], "w"))
"""


def rows_of(task, count, seed):
    """Rows in files of the recipe: short enough for one window, so that a plain model sees what the recipe saw."""
    if task == "qa":
        questions = tiny_questions(count, seed=seed, long=False)
        answers = [{"text": [one.answers[0].text], "answer_start": [one.answers[0].start]} for one in questions]
        return [
            {"id": one.id, "question": one.question, "context": one.context, "answers": answer}
            for one, answer in zip(questions, answers, strict=True)
        ]
    if task == "multiple_choice":
        return [
            {
                **{"id": one.id, "context": one.firsts[0], "question": "what ?"},
                **{"choices": list(one.seconds), "label": one.label},
            }
            for one in tiny_choices(count, seed=seed)
        ]
    if task == "token_classification":
        sentences = tiny_sentences(count, seed=seed, entities=True, long=False)
        return [
            {"id": one.id, "tokens": list(one.words[number % 4 :]), "tags": list(one.tags[number % 4 :])}
            for number, one in enumerate(sentences)
        ]
    return [
        {"id": f"{number}", "text": f"the {COLOURS[number % 2]} {thing}", "label": ("good", "bad")[number % 2]}
        for number, thing in enumerate(random.Random(seed).choices(THINGS, k=count))
    ]


def predictions_of(directory, task):
    if task == "classification":
        with (directory / "predictions.csv").open(newline="") as file:
            return {row["id"]: row["prediction"] for row in csv.DictReader(file)}
    found = json.loads((directory / "predictions.json").read_text())
    return found if task != "multiple_choice" else {name: one["choice"] for name, one in found.items()}


def tied(directory, task):
    """Questions whose two best choices have logits that differ by rounding; which one wins depends on the padding."""
    if task != "multiple_choice":
        return set()
    found = json.loads((directory / "predictions.json").read_text())
    best_two = {name: sorted(one["logits"])[-2:] for name, one in found.items()}
    return {name for name, (second, first) in best_two.items() if first - second < 1e-5}


RECIPES = {
    **{"classification": classification, "qa": qa, "multiple_choice": multiple_choice},
    "token_classification": token_classification,
}


@pytest.mark.slow
def test_every_recipe_leaves_a_model_that_plain_transformers_loads_with_the_same_predictions(tmp_path):
    """Every kind of head, three families, pretrained and from scratch; read without any package of the project."""
    files, rows = {}, {}
    for task in RECIPES:
        rows[task] = rows_of(task, 12, 2)
        for split, content in (("train", rows_of(task, 80, 1)), ("test", rows[task])):
            files[task, split] = tmp_path / f"{task}-{split}.json"
            files[task, split].write_text(json.dumps(content))
    runs, expected = {}, {}
    for family in FAMILIES:
        source = save_tiny_model(tmp_path / family, family, WORDS)
        for task, recipe in RECIPES.items():
            for scratch in ("false", "true"):
                out = tmp_path / f"{task}-{family}-{scratch}"
                arguments = {
                    **{"model_name_or_path": source, "from_scratch": scratch, "output_dir": str(out)},
                    **{"train_file": files[task, "train"], "validation_file": files[task, "test"]},
                    **{
                        "num_train_epochs": 4,
                        "global_batch_rows": 8,
                        "learning_rate": 1e-2,
                        "bf16": "false",
                        "report_to": "none",
                    },
                }
                assert (
                    recipe.main([part for name, value in arguments.items() for part in (f"--{name}", str(value))]) == 0
                )
                runs[str(out / "best")] = task
                expected[str(out / "best")] = predictions_of(out, task)
    again = tmp_path / "predicted"
    for best, task in list(runs.items())[::5]:
        arguments = ["--model_name_or_path", best, "--test_file", str(files[task, "test"]), "--output_dir", str(again)]
        assert predict.main([*arguments, "--bf16", "false"]) == 0
        assert predictions_of(again, task) == expected[best]
        shutil.rmtree(again)
    for name, content in (("runs.json", runs), ("rows.json", rows)):
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "read.py").write_text(READ)
    command = [
        sys.executable,
        "-I",
        "-S",
        "read.py",
        "runs.json",
        "rows.json",
        "found.json",
        sysconfig.get_path("purelib"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    for best, task in runs.items():
        for name in tied(Path(best).parent, task):
            del found[best][name], expected[best][name]
    assert found == expected
    for task in RECIPES:  # constant answers would agree with anything
        assert any(len(set(map(str, found[best].values()))) > 1 for best in runs if runs[best] == task)


def test_our_own_head_is_said_saved_and_loaded(tmp_path, capsys):
    source = save_tiny_model(tmp_path / "model", "bert", WORDS)
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows_of("classification", 40, 1)))
    arguments = ["--model_name_or_path", source, "--train_file", str(file), "--validation_file", str(file)]
    arguments += ["--num_train_epochs", "1", "--bf16", "false", "--report_to", "none", "--pooling", "mean"]
    assert classification.main([*arguments, "--output_dir", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.count("from finetuning import load") == 2
    model, tokenizer = load(tmp_path / "run" / "best")
    expected = predictions_of(tmp_path / "run", "classification")
    with torch.no_grad():
        for row in rows_of("classification", 40, 1):
            number = int(model(**tokenizer(row["text"], return_tensors="pt")).logits.argmax())
            assert model.config.id2label[number] == expected[row["id"]]
    facts = json.loads((tmp_path / "run" / "best" / RECIPE_NAME).read_text())
    assert (facts["pooling"], facts["own_head"], facts["labels"]) == ("mean", True, ["bad", "good"])
    again = ["--model_name_or_path", str(tmp_path / "run" / "best"), "--test_file", str(file), "--bf16", "false"]
    assert predict.main([*again, "--output_dir", str(tmp_path / "again")]) == 0
    assert predictions_of(tmp_path / "again", "classification") == expected
    with pytest.raises(ValueError, match="name the `best` folder"):
        load(source)


def test_a_head_that_an_earlier_version_saved_is_still_evaluated(tmp_path, capsys):
    """A bare encoder with head.safetensors and head.json beside it."""
    source = tmp_path / "old"
    save_tiny_model(source, "bert", WORDS)
    headed = load_headed(str(source), Head(SPANS, 2, own=True))
    head = headed.draw(9).head
    save_file(
        {"head.weight": head.weight.data.clone(), "head.bias": head.bias.data.clone()}, source / "head.safetensors"
    )
    (source / "head.json").write_text(json.dumps({"recipe": "qa"}))
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows_of("qa", 12, 1)))
    arguments = ["--model_name_or_path", str(source), "--test_file", str(file), "--bf16", "false"]
    assert predict.main([*arguments, "--output_dir", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "all of it from the checkpoint" in out
    assert "random" not in out


def test_predict_says_what_it_needs(tmp_path, capsys):
    source = save_tiny_model(tmp_path / "model", "bert", WORDS)
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows_of("qa", 4, 1)))
    for arguments, told in (
        (["--test_file", str(file)], "required: --model_name_or_path"),
        (["--model_name_or_path", source], "required: --test_file"),
    ):
        with pytest.raises(SystemExit) as ended:
            predict.main([*arguments, "--output_dir", str(tmp_path / "out")])
        assert ended.value.code == 2
        assert told in capsys.readouterr().err
    for model, examples, told in (
        ("", str(file), "--model_name_or_path is missing"),
        (source, "", "--test_file is missing"),
        (source, str(file), "no head of a task"),
    ):
        given = ["--model_name_or_path", model, "--test_file", examples, "--output_dir", str(tmp_path / "out")]
        assert predict.main(given) == 2
        assert told in capsys.readouterr().err


def test_a_classifier_of_others_is_evaluated_by_its_own_classes(tmp_path, capsys):
    """Saved with plain `transformers`: classes in another order, or without names."""
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows_of("classification", 20, 1)))
    numbered = tmp_path / "numbered.json"
    rows = [{**row, "label": str(int(row["label"] == "good"))} for row in rows_of("classification", 20, 1)]
    numbered.write_text(json.dumps(rows))
    source = save_tiny_model(tmp_path / "model", "bert", WORDS)
    for labels, data in ((("good", "bad"), file), (("LABEL_0", "LABEL_1"), numbered)):
        folder = tmp_path / labels[0]
        shutil.copytree(source, folder)
        model = load_headed(source, Head(CLASSIFICATION, 2, labels)).draw(3)
        model.save_pretrained(folder)
        arguments = ["--model_name_or_path", str(folder), "--test_file", str(data), "--bf16", "false"]
        assert predict.main([*arguments, "--output_dir", str(tmp_path / "out" / labels[0])]) == 0
        assert "all of it from the checkpoint" in capsys.readouterr().out
        names = labels if labels[0] == "good" else ("0", "1")
        found = predictions_of(tmp_path / "out" / labels[0], "classification")
        tokenizer = load_tokenizer(source)
        with torch.no_grad():
            for row in rows[:5]:
                number = int(model.eval()(**tokenizer(row["text"], return_tensors="pt")).logits.argmax())
                assert found[row["id"]] == names[number]


def test_pooling_sees_real_tokens_only():
    hidden = torch.tensor([[[1.0, -5.0], [3.0, -1.0], [100.0, 100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool(hidden, mask, "cls").tolist() == [[1.0, -5.0]]
    assert pool(hidden, mask, "mean").tolist() == [[2.0, -3.0]]
    assert pool(hidden, mask, "max").tolist() == [[3.0, -1.0]]
    with pytest.raises(ValueError, match="one of cls, mean, max"):
        pool(hidden, mask, "sum")
