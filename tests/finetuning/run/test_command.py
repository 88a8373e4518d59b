"""The launchable recipes from a command line to their files, in this process."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from exit_statuses import status_of
from tiny_encoder import save_tiny_model
from tiny_examples import WORDS, tiny_choices, tiny_questions

from finetuning import classification, multiple_choice, qa
from finetuning.loop.run_log import read_journal
from finetuning.recipes.questions.squad import Answer
from finetuning.run.command import for_small_world
from pretraining.checkpoints.series import FIELDS, add_to_series
from shards.small_world.world import WorldSizes, write_small_world


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch, tmp_path):
    """Tiny models gain nothing from a second thread; what a command writes by default goes to the test's folder."""
    for module in ("loop.training", "run.command"):
        monkeypatch.setattr(f"finetuning.{module}.choose_device", lambda ranks: torch.device("cpu"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"), "modernbert", WORDS)


def squad_file(path, questions, *, labelled=True):
    entries = [
        {
            "context": one.context,
            "qas": [
                {
                    "id": one.id,
                    "question": one.question,
                    "answers": [{"text": each.text, "answer_start": each.start} for each in one.answers if labelled],
                }
            ],
        }
        for one in questions
    ]
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": entries}]}))
    return str(path)


def arguments(model, **values):
    shared = {
        "model_name_or_path": model,
        "output_dir": "out",
        "num_train_epochs": 1,
        "max_seq_length": 32,
        "doc_stride": 8,
        "bf16": "false",
        "global_batch_rows": 16,
        "learning_rate": 5e-3,
    }
    return [part for name, value in {**shared, **values}.items() for part in (f"--{name}", str(value))]


def results(directory):
    return json.loads((directory / "all_results.json").read_text("utf-8"))


def test_qa_trains_writes_and_scores_its_own_model_the_same_again(tmp_path, model, capsys):
    files = {
        "train_file": squad_file(tmp_path / "train.json", tiny_questions(40, prefix="t", seed=1)),
        "validation_file": squad_file(tmp_path / "validation.json", tiny_questions(19, prefix="v", seed=2)),
    }
    assert qa.main(arguments(model, **files)) == 0
    found = results(tmp_path / "out")
    assert found["status"] in ("done", "collapsed")
    assert {"eval_exact_match", "eval_f1", "seconds", "train_samples_per_second", "updates"} <= found.keys()
    assert found["metric"] == "f1"
    assert "preflight: " in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {
        "predictions.json",
        "nbest_predictions.json",
        "prediction.csv",
        "journal.jsonl",
        "tensorboard",
        "curves.png",
    } <= names
    assert "state" not in names
    # The model it left, evaluated only, through the test path, labelled and not.
    files["test_file"] = files["validation_file"]
    again = arguments(str(tmp_path / "out" / "best"), **files, num_train_epochs=0, per_device_eval_batch_size=5)
    assert qa.main([*again, "--output_dir", "again"]) == 0
    second = results(tmp_path / "again")
    for name in ("exact_match", "f1"):
        assert second[f"test_{name}"] == second[f"eval_{name}"] == found[f"eval_{name}"]
    predictions = (tmp_path / "out" / "predictions.json").read_text("utf-8")
    assert (tmp_path / "again" / "predictions.json").read_text("utf-8") == predictions
    blind = squad_file(tmp_path / "blind.json", tiny_questions(19, prefix="v", seed=2), labelled=False)
    assert qa.main([*again, "--output_dir", "blind", "--test_file", blind]) == 0
    assert "test_f1" not in results(tmp_path / "blind")
    assert (tmp_path / "blind" / "predictions.json").read_text("utf-8") == predictions


def forbid_training(monkeypatch):
    def train(*arguments, **more):
        raise AssertionError("a finished run is trained again")

    monkeypatch.setattr("finetuning.run.command.finetune", train)


def test_a_finished_run_is_recognised_and_another_refused(tmp_path, model, monkeypatch, capsys):
    questions = tiny_questions(20, prefix="t", seed=1)
    train, validation = squad_file(tmp_path / "train.json", questions), squad_file(tmp_path / "v.json", questions[:6])
    given = arguments(model, train_file=train, validation_file=validation)
    assert qa.main(given) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.json*")}
    capsys.readouterr()
    with monkeypatch.context() as patched:
        forbid_training(patched)
        assert qa.main(given) == 0
        said = capsys.readouterr().out
        assert "finished before, not run again" in said
        assert f"eval_f1                   {results(tmp_path / 'out')['eval_f1']:.4f}".split() == next(
            line.split() for line in said.splitlines() if line.startswith("eval_f1 ")
        )
        assert qa.main([*given, "--seed", "3"]) == 2
        assert "other options, data or weights" in capsys.readouterr().err
        squad_file(tmp_path / "v.json", [replace(one, answers=(Answer("the", -1),)) for one in questions[:6]])
        assert qa.main(given) == 2  # the same rows, other answers
        assert {path: path.read_bytes() for path in before} == before
    assert qa.main([*given, "--resume_from_checkpoint", "false"]) == 0
    assert (
        results(tmp_path / "out")["fingerprint"]
        != json.loads(before[tmp_path / "out" / "all_results.json"])["fingerprint"]
    )


def test_sigterm_saves_and_the_same_command_ends_as_if_nothing_had_been(tmp_path, model, project_root, monkeypatch):
    files = {
        "train_file": squad_file(tmp_path / "train.json", tiny_questions(120, prefix="t", seed=1)),
        "validation_file": squad_file(tmp_path / "validation.json", tiny_questions(19, prefix="v", seed=2)),
    }
    given = arguments(model, **files, num_train_epochs=8, global_batch_rows=4, report_to="none")
    command = [sys.executable, str(project_root / "finetuning" / "qa.py"), *given]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    journal, deadline = tmp_path / "out" / "journal.jsonl", time.monotonic() + 240
    while not (journal.is_file() and journal.read_bytes()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 75, said
    assert "run the same command again" in said
    marker = json.loads((tmp_path / "out" / "INTERRUPTED.json").read_text())
    assert marker["reason"] == "SIGTERM"
    assert 0 < marker["progress"]["updates"] < marker["progress"]["total_updates"]
    assert len(read_journal(journal)) >= marker["progress"]["updates"]
    assert qa.main(given) == 0
    assert not (tmp_path / "out" / "INTERRUPTED.json").exists()
    assert qa.main([*given, "--output_dir", "whole"]) == 0
    found, whole = results(tmp_path / "out"), results(tmp_path / "whole")
    same = [name for name in whole if name.startswith("eval_")] + ["fingerprint", "best_epoch", "updates"]
    assert {name: found[name] for name in same} == {name: whole[name] for name in same}
    for name in ("predictions.json", "history.json", "journal.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_mistakes_end_with_a_message_and_status_2(tmp_path, model, capsys):
    (tmp_path / "folder.json").mkdir()
    train = squad_file(tmp_path / "train.json", tiny_questions(4, prefix="t"))
    cases = [
        ({"train_file": "nothing.json"}, "nothing.json: no such file"),
        ({"train_file": tmp_path / "folder.json"}, "folder.json: not a regular file"),
        ({"train_file": train, "global_batch_rows": 0}, "--global_batch_rows 0"),
        ({"train_file": train, "per_device_eval_batch_size": 0}, "--per_device_eval_batch_size 0"),
        ({"train_file": train, "num_train_epochs": "inf"}, "--num_train_epochs inf"),
        ({"train_file": train, "answer_language": "de"}, "--answer_language de"),
        ({"train_file": train, "max_train_samples": 0}, "--max_train_samples 0: use at least 1"),
        ({"train_file": train, "model_name_or_path": "./nowhere"}, "no such directory"),
        ({"train_file": train, "dataset_name": "set"}, "--dataset_name and --train_file"),
        ({"train_file": train, "dataset_config_name": "c"}, "--dataset_config_name c does nothing without"),
        ({"dataset_name": "nobody/nothing"}, "neither the cache nor the hub has it"),
    ]
    for values, message in cases:
        assert status_of(qa.main, arguments(model, **values)) == 2
        assert message in capsys.readouterr().err
    blind = squad_file(tmp_path / "blind.json", tiny_questions(4), labelled=False)
    assert qa.main(arguments(model, train_file=train, validation_file=blind)) == 2
    assert "the validation set has no answers" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        qa.main(["--lerning_rate", "1"])
    assert caught.value.code == 2
    assert "--learning_rate" in capsys.readouterr().err


def test_updates_without_a_row_to_learn_from_are_refused_and_none_at_all_says_that_the_head_is_random(
    tmp_path, model, capsys
):
    validation = squad_file(tmp_path / "v.json", tiny_questions(4))
    lost = squad_file(tmp_path / "lost.json", [replace(tiny_questions(1)[0], answers=(Answer("nowhere", -1),))])
    given = arguments(model, validation_file=validation)
    assert qa.main(given) == 2
    assert "no training set is named; give a --train_file" in capsys.readouterr().err
    assert qa.main([*given, "--train_file", lost]) == 2
    assert "lost.json gives none (1 questions were dropped" in capsys.readouterr().err
    for extra in (["--num_train_epochs", "0"], ["--max_steps", "0", "--train_file", validation]):
        assert qa.main([*given, *extra, "--output_dir", extra[0].strip("-")]) == 0
        assert "has no head of this recipe: the scores are those of a random one" in capsys.readouterr().out


def test_without_a_model_the_command_that_makes_one_is_named(tmp_path, capsys):
    train = squad_file(tmp_path / "train.json", tiny_questions(4))
    assert qa.main(["--train_file", train]) == 2
    assert "python launch/pretrain.py" in capsys.readouterr().err


def test_multiple_choice_writes_its_choices(tmp_path, model, capsys):
    for split, number in (("train", 40), ("validation", 15)):
        rows = [
            {
                "id": one.id,
                "context": one.firsts[0],
                "question": "",
                "choices": list(one.seconds),
                "label": one.label,
            }
            for one in tiny_choices(number, prefix=split)
        ]
        (tmp_path / f"{split}.json").write_text(json.dumps(rows))
    given = arguments(model, train_file="train.json", validation_file="validation.json")
    assert status_of(multiple_choice.main, [*given, "--qa_learning_rate", "1"]) == 2
    assert "--qa_learning_rate 1.0 does nothing without --chain" in capsys.readouterr().err
    assert multiple_choice.main([*given, "--test_file", "train.json", "--strict", "true"]) == 2
    assert "texts occur both in train and in test" in capsys.readouterr().err
    assert multiple_choice.main(given) == 0
    assert 0 <= results(tmp_path / "out")["eval_accuracy"] <= 1
    assert len((tmp_path / "out" / "prediction.csv").read_text("utf-8").splitlines()) == 16


def test_strict_refuses_questions_that_would_be_dropped_and_texts_of_two_sets(tmp_path, model, capsys):
    train = squad_file(tmp_path / "train.json", tiny_questions(6, prefix="t", long=False))
    given = arguments(model, train_file=train, strict="true")
    same = squad_file(tmp_path / "same.json", tiny_questions(6, prefix="v", long=False))
    assert qa.main([*given, "--validation_file", same]) == 2
    assert "--strict, and the preflight warns: 6 texts occur both in train and in validation" in capsys.readouterr().err
    long = tiny_questions(6, prefix="v", seed=2)
    split = [replace(one, answers=(Answer(one.context[: len(one.context) // 2], 0),)) for one in long]
    answers = squad_file(tmp_path / "split.json", split)
    assert qa.main([*given, "--validation_file", answers, "--max_seq_length", "20"]) == 2
    assert "answers of validation do not fit into any window" in capsys.readouterr().err


def test_questions_on_a_blank_context_are_named_and_told_from_those_that_need_the_chain(tmp_path, model, capsys):
    train = squad_file(tmp_path / "train.json", tiny_questions(6, prefix="t", long=False))
    some = tiny_questions(3, prefix="v", long=False)
    blank = squad_file(tmp_path / "blank.json", [*some, replace(some[0], id="empty", context=" ", answers=())])
    assert qa.main([*arguments(model, train_file=train, validation_file=blank), "--version_2_with_negative"]) == 2
    said = capsys.readouterr().err
    assert "the validation set has 1 questions without a paragraph (empty): give each its context" in said


def test_a_row_limit_below_the_one_asked_for_is_said_once_and_refused_by_nothing(tmp_path, model, capsys):
    """The tiny model has 128 positions."""
    train = squad_file(tmp_path / "train.json", tiny_questions(6, prefix="t", seed=1))
    validation = squad_file(tmp_path / "validation.json", tiny_questions(6, prefix="v", seed=2))
    given = arguments(model, train_file=train, validation_file=validation, num_train_epochs=0, strict="true")
    assert qa.main([*given, "--max_seq_length", "384"]) == 0
    assert (
        capsys.readouterr().out.count("note: --max_seq_length 384 is lowered to 128, the positions of the model") == 1
    )
    assert results(tmp_path / "out")["preflight_max_seq_length"] == 128
    assert results(tmp_path / "out")["preflight_train_unknown_share"] == 0
    assert qa.main([*given, "--max_seq_length", "128", "--output_dir", "fits"]) == 0
    assert "is lowered" not in capsys.readouterr().out
    assert "preflight_max_seq_length" not in results(tmp_path / "fits")


def two_stage_files(tmp_path):
    questions = {
        split: tiny_questions(n, prefix=split, seed=n) for split, n in (("train", 30), ("validation", 13), ("test", 7))
    }
    contexts = list(dict.fromkeys(one.context for split in questions.values() for one in split))
    (tmp_path / "context.json").write_text(json.dumps(contexts))
    for split, asked in questions.items():
        rows = []
        for i, one in enumerate(asked):
            right = contexts.index(one.context)
            numbers = [(right + step * 7) % len(contexts) for step in range(4)]
            row = {"id": one.id, "question": one.question, "paragraphs": numbers[i % 4 :] + numbers[: i % 4]}
            if split != "test":
                row |= {"relevant": right, "answer": {"text": one.answers[0].text, "start": one.answers[0].start}}
            rows.append(row)
        (tmp_path / f"{split}.json").write_text(json.dumps(rows))
    return {
        name: f"{name.split('_')[0]}.json" for name in ("train_file", "validation_file", "test_file", "context_file")
    }


def test_the_chain_says_what_the_choice_costs(tmp_path, model, monkeypatch, capsys):
    files = two_stage_files(tmp_path)
    assert multiple_choice.main(arguments(model, **files, chain="true", qa_num_train_epochs=2)) == 0
    found = results(tmp_path / "out")
    right, total = found["eval_choice_right"], found["eval_examples"]
    assert found["eval_choice_accuracy"] == pytest.approx(right / total)
    parts = [(found["eval_exact_match_choice_right"], right), (found["eval_exact_match_choice_wrong"], total - right)]
    chain = sum(score * count for score, count in parts if count) / total
    assert found["eval_exact_match_chain"] == pytest.approx(chain)
    lost = found["eval_exact_match_right_paragraph"] - found["eval_exact_match_chain"]
    assert found["eval_points_lost_by_choice"] == pytest.approx(lost)
    assert f"{lost:.2f} points are lost to the {total - right} of {total}" in capsys.readouterr().out
    lines = (tmp_path / "out" / "prediction.csv").read_text("utf-8").splitlines()
    assert [line.split(",")[0] for line in lines] == ["id", *(f"test{i}" for i in range(7))]
    # The same command again runs neither stage.
    before = (tmp_path / "out" / "all_results.json").read_bytes()
    with monkeypatch.context() as patched:
        forbid_training(patched)
        assert multiple_choice.main(arguments(model, **files, chain="true", qa_num_train_epochs=2)) == 0
    assert (tmp_path / "out" / "all_results.json").read_bytes() == before
    assert {"status", "metric"} <= found.keys()
    # The two models that it left, evaluated only, without the training file, give the same.
    best = [str(tmp_path / "out" / stage / "best") for stage in ("multiple_choice", "qa")]
    alone = {name: file for name, file in files.items() if name != "train_file"}
    again = arguments(best[0], **alone, chain="true", qa_model_name_or_path=best[1], num_train_epochs=0)
    assert multiple_choice.main([*again, "--output_dir", "again"]) == 0
    assert results(tmp_path / "again")["eval_exact_match_chain"] == found["eval_exact_match_chain"]
    assert (tmp_path / "again" / "prediction.csv").read_text("utf-8").splitlines() == lines
    # Each test answer stands in the paragraph that was chosen for its question.
    contexts = json.loads((tmp_path / "context.json").read_text())
    chosen = json.loads((tmp_path / "out" / "multiple_choice" / "predictions.json").read_text("utf-8"))
    for line in lines[1:]:
        name, answer = line.split(",", 1)
        assert answer.strip('"') in contexts[int(chosen[name]["name"])]


def test_the_chain_needs_its_data_and_qa_alone_a_paragraph(tmp_path, model, capsys):
    files = two_stage_files(tmp_path)
    assert multiple_choice.main(arguments(model, train_file=files["train_file"], chain="true")) == 2
    assert "--chain true needs two-stage data" in capsys.readouterr().err
    lost = arguments(model, **files, chain="true", qa_model_name_or_path="./nowhere")
    assert multiple_choice.main(lost) == 2
    assert "--qa_model_name_or_path ./nowhere: no such directory" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # refused before the first stage
    assert qa.main(arguments(model, **files)) == 2
    assert "multiple_choice.py --chain true" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "score"), [(qa, "eval_f1"), (multiple_choice, "eval_accuracy"), (classification, "eval_accuracy")]
)
def test_without_any_option_the_small_world_runs_from_the_default_run(tmp_path, monkeypatch, command, score):
    sizes = WorldSizes(documents=30, train=30, validation=10, test=10)
    monkeypatch.setattr("finetuning.run.command.write_small_world", lambda place: write_small_world(place, sizes=sizes))
    save_tiny_model(tmp_path / "runs" / "pretrain" / "series" / "final", "modernbert", WORDS)
    checkpoint = {**dict.fromkeys(FIELDS, 0), "path": "series/final", "kind": "annealed", "budget_tokens": 9}
    add_to_series(tmp_path / "runs" / "pretrain" / "series.json", checkpoint)
    assert command.main([]) == 0
    found = results(tmp_path / "runs" / "finetuning" / command.__name__.rsplit(".", 1)[-1])
    assert {score, score.replace("eval", "test")} <= found.keys()
    assert found["epoch"] == 8.0


def test_the_small_world_keeps_options_that_were_given():
    options = for_small_world(qa.QAOptions(num_train_epochs=1, seed=3))
    assert (options.num_train_epochs, options.learning_rate, options.seed) == (1, 1e-3, 3)
    assert for_small_world(qa.QAOptions(gradient_accumulation_steps=2)).global_batch_rows is None
    given = qa.QAOptions(train_file="f.json")
    assert for_small_world(given) == given
    given = classification.ClassificationOptions(data="folder")
    assert for_small_world(given) == given


def test_a_saved_data_set_is_read_like_files(tmp_path, model):
    from datasets import Dataset, DatasetDict

    def rows(number, prefix):
        return [
            {
                "id": one.id,
                "question": one.question,
                "context": one.context,
                "answers": {"text": [one.answers[0].text], "answer_start": [one.answers[0].start]},
            }
            for one in tiny_questions(number, prefix=prefix)
        ]

    splits = {"train": rows(20, "t"), "dev": rows(7, "v")}
    DatasetDict({name: Dataset.from_list(part) for name, part in splits.items()}).save_to_disk(str(tmp_path / "set"))
    assert qa.main(arguments(model, dataset_name="set")) == 0
    assert json.loads((tmp_path / "out" / "predictions.json").read_text("utf-8")).keys() == {f"v{i}" for i in range(7)}
