"""A series on the hub: names of its branches, what each holds, resumption, and a hub that fails while training goes on.

The hub is a stand-in on this machine, its client the real one.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from file_mutations import few_and_many, refusals
from huggingface_hub import HfApi, ModelCard, constants
from pretraining_runs import in_process, series, write_shards
from safetensors.torch import load_file, save_file
from servers.hub_server import TOKEN, hub_server
from tiny_gap import write_series, write_tasks

from gap.study.experiment import series_rows
from launch.gap import main as gap
from launch.push import main as push
from pretraining.checkpoints.origin import run_digest
from pretraining.checkpoints.series import read_series
from pretraining.model.source.weights import checkpoint_digest
from pretraining.publishing import hub_process
from pretraining.publishing.hub_download import fetch_series, local_series
from pretraining.publishing.hub_series import HubPlace, amount_text, push_series, revision_of, revisions_of
from pretraining.publishing.model_card import front_matter
from runtime.hub import hub_is_reachable

NAME = "lab/small"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, for this process and those that it starts."""
    with hub_server() as server:
        server.meet(monkeypatch, tmp_path / "hub-cache")
        yield server


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0"), (2000, "2000"), (1e5, "1e5"), (2_400_000, "2.4e6"), (1e6, "1e6"), (123_456, "1.23456e5"),
     (1 / 3 * 1e6, "3.33333e5"), (0.05, "0.05"), (1e15, "1e15"), (99_999, "9.9999e4"), (1e10, "1e10")],
)  # fmt: skip
def test_a_budget_as_part_of_a_branch_s_name(amount, text):
    assert amount_text(float(amount)) == text


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"kind": "annealed", "budget_tokens": 1e6}, "tokens-1e6"),
        ({"kind": "raw", "budget_tokens": 2.4e6}, "tokens-2.4e6-raw"),
        ({"kind": "raw", "budget_tokens": 0.0}, "tokens-0"),
        ({"kind": "annealed", "budget_tokens": 31234.0, "budget": 0.5, "budget_unit": "hours"}, "hours-0.5"),
        ({"kind": "annealed", "budget_tokens": 7.0, "budget": 1e15, "budget_unit": "flops"}, "flops-1e15"),
    ],
)
def test_a_branch_is_named_by_the_budget_in_its_own_unit(entry, name):
    assert revision_of(entry) == name


def test_two_checkpoints_never_share_a_branch():
    with pytest.raises(ValueError, match="would be the branch tokens-1e6: push them from two folders"):
        revisions_of([{"kind": "annealed", "budget_tokens": 1e6, "pretraining_seed": seed} for seed in (0, 1)])


def test_every_checkpoint_is_a_branch_and_main_the_largest_with_the_list(hub, tmp_path, no_pauses):
    write_series(tmp_path / "run", (10_000, 20_000), masked_lm=True)
    said = []
    assert push_series(tmp_path / "run", HubPlace(NAME, license="mit", language="en"), said.append) == 4
    assert sorted(hub.repositories[NAME].branches) == ["main", "tokens-0", "tokens-1e4", "tokens-2e4"]
    for branch, folder in (("tokens-0", "raw-0"), ("tokens-1e4", "annealed-10000"), ("main", "annealed-20000")):
        own = (tmp_path / "run" / "series" / folder / "model.safetensors").read_bytes()
        assert hub.files(NAME, branch)["model.safetensors"] == own
        assert len(hub.messages(NAME, branch)) == 2, "one commit after the repository's own"
    assert len(hub.uploads) == 3, "main's weights are those of the largest"
    listed = json.loads(hub.files(NAME)["series.json"])["checkpoints"]
    assert [(entry["path"], entry["revision"]) for entry in listed] == [
        ("series/raw-0", "tokens-0"),
        ("series/annealed-10000", "tokens-1e4"),
        ("series/annealed-20000", "tokens-2e4"),
    ]
    card = ModelCard(hub.files(NAME)["README.md"].decode())
    assert (card.data.license, card.data.language) == ("mit", "en")
    assert "| `tokens-1e4` | annealed | 10,000 | 1e+10 | -95.0000 | 0.1000 |" in card.text
    assert said[-1] == f"pushed {NAME} at main, which is tokens-2e4"
    assert str(tmp_path) not in b"".join(hub.files(NAME).values()).decode(errors="replace")


@few_and_many
def test_a_damaged_card_is_pushed_or_refused_by_name(tmp_path, rounds):
    card = tmp_path / "README.md"
    card.write_text(f"{front_matter('fill-mask', base_model='lab/base')}# a model\n\n| tokens | 7 |\n")
    refusals(card, lambda: HubPlace(NAME, language="en").card(tmp_path), rounds, least=0.0)


def test_a_series_that_has_grown_pushes_what_is_new_and_moves_main(hub, tmp_path, no_pauses):
    place = HubPlace(NAME)
    write_series(tmp_path / "run", (10_000,))
    assert push_series(tmp_path / "run", place) == 3
    assert push_series(tmp_path / "run", place) == 0
    write_series(tmp_path / "run", (10_000, 20_000))
    assert push_series(tmp_path / "run", place) == 2
    assert hub.messages(NAME, "main") == ["Main is tokens-2e4", "Main is tokens-1e4", "initial commit"]
    assert len(hub.messages(NAME, "tokens-1e4")) == 2


def test_another_run_is_not_pushed_over_a_series(hub, tmp_path, no_pauses):
    write_series(tmp_path / "run", (10_000,))
    write_series(tmp_path / "other", (10_000,), seed=7)
    push_series(tmp_path / "run", HubPlace(NAME))
    before = dict(hub.repositories[NAME].branches)
    with pytest.raises(ValueError, match=f"{NAME} at tokens-0 holds other weights"):
        push_series(tmp_path / "other", HubPlace(NAME))
    assert hub.repositories[NAME].branches == before


def trained_again(folder):
    """Other weights for the same checkpoint, as another machine's rounding makes them."""
    tensors = {name: tensor + 1 for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_a_checkpoint_that_was_trained_again_keeps_no_later_one_from_the_hub(hub, tmp_path, no_pauses):
    series = tmp_path / "run" / "series"
    write_series(tmp_path / "run", (10_000,))
    push_series(tmp_path / "run", HubPlace(NAME))
    left = dict(hub.repositories[NAME].branches)["tokens-1e4"]
    write_series(tmp_path / "run", (10_000, 20_000))
    trained_again(series / "annealed-10000")
    for commits in (2, 0):  # said again each time
        said = []
        with pytest.raises(ValueError, match=f"^{NAME} at tokens-1e4 holds other weights[^;]*$"):
            push_series(tmp_path / "run", HubPlace(NAME), said.append)
        assert len(said) == commits
    assert hub.repositories[NAME].branches["tokens-1e4"] == left
    own = (series / "annealed-20000" / "model.safetensors").read_bytes()
    assert hub.files(NAME, "tokens-2e4")["model.safetensors"] == hub.files(NAME)["model.safetensors"] == own
    listed = json.loads(hub.files(NAME)["series.json"])["checkpoints"]
    assert [entry["revision"] for entry in listed] == ["tokens-0", "tokens-2e4"]


def named_run(folder, budgets, **identity):
    """A series beside the run.json of its run."""
    write_series(folder, budgets)
    identity = {"shards": {"train": ["0" * 64]}, "seed": 1, "learning_rate": 1e-3, **identity}
    (folder / "run.json").write_text(json.dumps({"schema_version": 1, "identity": identity, "shards": "/data"}))
    return folder


def test_fault_79_a_second_run_pushed_into_one_repository(hub, tmp_path, no_pauses, capsys):
    """Of the same seed, so with the same first weights, and at other budgets: no branch of the first is in its way."""
    run, other = named_run(tmp_path / "run", (10_000,)), named_run(tmp_path / "other", (20_000,), learning_rate=2e-3)
    assert push([str(run), "--hub_model_id", NAME]) == 0
    before = dict(hub.repositories[NAME].branches)
    assert push([str(other), "--hub_model_id", NAME]) == 2
    assert f"error: {NAME} holds the series of another run (series.json on main names" in capsys.readouterr().err
    assert hub.repositories[NAME].branches == before
    assert run_digest(run) == json.loads(hub.files(NAME)["series.json"])["run"] != run_digest(other)
    assert b"/data" not in hub.files(NAME)["series.json"]


def test_a_run_whose_every_checkpoint_was_trained_again_is_the_same_by_its_identity(hub, tmp_path, no_pauses):
    run = named_run(tmp_path / "run", (10_000,))
    push_series(run, HubPlace(NAME))
    named_run(run, (10_000, 20_000))
    for name in ("raw-0", "annealed-10000"):
        trained_again(run / "series" / name)
    with pytest.raises(ValueError, match=r"at tokens-0 holds other weights.*; .* at tokens-1e4 holds other weights"):
        push_series(run, HubPlace(NAME))
    listed = json.loads(hub.files(NAME)["series.json"])["checkpoints"]
    assert [entry["revision"] for entry in listed] == ["tokens-2e4"]


def test_a_list_without_an_identity_or_a_damaged_one_is_replaced(hub, tmp_path, no_pauses):
    run = named_run(tmp_path / "run", (10_000,))
    push_series(run, HubPlace(NAME))
    repository = hub.repositories[NAME]
    for damaged in (b"{", b'{"schema_version": 1, "checkpoints": []}'):
        repository.commit("main", {**hub.files(NAME), "series.json": damaged}, "by hand")
        assert push_series(run, HubPlace(NAME)) == 1
        assert json.loads(hub.files(NAME)["series.json"])["run"] == run_digest(run)


def test_a_fetched_series_names_its_run_and_a_study_takes_no_run_twice(hub, tmp_path, no_pauses):
    run = named_run(tmp_path / "run", (10_000,))
    push_series(run, HubPlace(NAME))
    hub_is_reachable.cache_clear()
    fetched = fetch_series(NAME, tmp_path / "cache")
    assert run_digest(fetched) == run_digest(run) is not None
    assert push_series(fetched, HubPlace(NAME)) == 0
    with pytest.raises(ValueError, match="are the same run: name one of them"):
        series_rows([run / "series.json", fetched / "series.json"])
    hub_is_reachable.cache_clear()


def test_main_is_not_moved_back_from_a_largest_checkpoint_that_was_trained_again(hub, tmp_path, no_pauses):
    write_series(tmp_path / "run", (10_000, 20_000))
    push_series(tmp_path / "run", HubPlace(NAME))
    before = dict(hub.repositories[NAME].branches)
    trained_again(tmp_path / "run" / "series" / "annealed-20000")
    with pytest.raises(ValueError, match=r"at tokens-2e4 holds other weights.*; .* at main holds other weights"):
        push_series(tmp_path / "run", HubPlace(NAME))
    assert hub.repositories[NAME].branches == before


def test_a_push_that_broke_off_goes_on_where_it_stopped(hub, tmp_path, monkeypatch, no_pauses):
    write_series(tmp_path / "run", (10_000, 20_000))
    commit, commits = HfApi.create_commit, []

    def killed_at_the_third(self, *arguments, **options):
        commits.append(options["revision"])
        if len(commits) == 3:
            raise KeyboardInterrupt
        return commit(self, *arguments, **options)

    monkeypatch.setattr(HfApi, "create_commit", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        push_series(tmp_path / "run", HubPlace(NAME))
    assert "model.safetensors" not in hub.files(NAME, "tokens-2e4"), "a branch without its commit is empty"
    assert push_series(tmp_path / "run", HubPlace(NAME)) == 2
    assert commits == ["tokens-0", "tokens-1e4", "tokens-2e4", "tokens-2e4", "main"]


def test_the_command_pushes_a_run_and_says_what_is_wrong(hub, tmp_path, capsys, no_pauses):
    write_series(tmp_path / "run", (10_000,))
    arguments = [str(tmp_path / "run"), "--hub_model_id", NAME]
    assert push(arguments) == 0
    assert capsys.readouterr().out.endswith(f"3 commits made: https://huggingface.co/{NAME}\n")
    assert push(arguments) == 0
    assert "nothing to push" in capsys.readouterr().out
    assert push([str(tmp_path), "--hub_model_id", NAME]) == 2
    assert "holds no series.json, no best/ and no config.json" in capsys.readouterr().err
    hub.failing = [("/refs", 503)] * 99
    assert push(arguments) == 1
    told = capsys.readouterr()
    assert f"error: {NAME} was not reached (Server error '503" in told.err
    assert TOKEN not in told.out + told.err


def test_a_series_comes_back_from_the_hub_as_the_run_left_it(hub, tmp_path, no_pauses, monkeypatch):
    write_series(tmp_path / "run", (10_000, 20_000), masked_lm=True)
    push_series(tmp_path / "run", HubPlace(NAME))
    hub_is_reachable.cache_clear()
    fetched = fetch_series(NAME, tmp_path / "cache")
    for own, there in zip(read_series(tmp_path / "run"), read_series(fetched), strict=True):
        assert checkpoint_digest(Path(own["path"]), "all") == checkpoint_digest(Path(there["path"]), "all")
        assert {**own, "path": ""} == {name: there[name] for name in own} | {"path": ""}
    gets = len(hub.requests)
    (Path(read_series(fetched)[1]["path"]) / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=f"model.safetensors is not the file of {NAME} at tokens-1e4: delete"):
        fetch_series(NAME, tmp_path / "cache")
    assert len(hub.requests) > gets
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub_is_reachable.cache_clear()
    assert fetch_series(NAME, tmp_path / "cache") == fetched
    with pytest.raises(ValueError, match="--series lab/other: there is no such path here, and the hub cannot be"):
        fetch_series("lab/other", tmp_path / "cache")
    hub_is_reachable.cache_clear()


def test_a_repository_without_a_series_is_said(hub, tmp_path, no_pauses):
    HubPlace(NAME).opened()
    hub_is_reachable.cache_clear()
    with pytest.raises(ValueError, match=f"--series {NAME}: main has no series.json: push the series"):
        fetch_series(NAME, tmp_path / "cache")
    with pytest.raises(ValueError, match="lab/nothing"):
        fetch_series("lab/nothing", tmp_path / "cache")
    hub_is_reachable.cache_clear()


@pytest.mark.parametrize("name", ["runs/x/series.json", "./lab/small", "lab", "a/b/c", "lab/series.json"])
def test_a_path_is_never_looked_for_on_the_hub(name):
    assert local_series(name) == name


@pytest.mark.slow
def test_a_study_takes_its_series_from_the_hub(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_series(tmp_path / "run", (10_000, 20_000))
    push_series(tmp_path / "run", HubPlace(NAME))
    tasks, hub_is_reachable_again = write_tasks(tmp_path / "tasks"), hub_is_reachable.cache_clear
    hub_is_reachable_again()
    options = {
        "series": NAME, "tasks": f"questions=qa:{tasks[0].place}", "output_dir": tmp_path / "out", "dry_run": "true",
        "reference": f"{NAME}@tokens-2e4",
        "learning_rates": "1e-3", "num_train_epochs": 1, "max_seq_length": 32, "doc_stride": 8,
    }  # fmt: skip
    assert gap([part for name, value in options.items() for part in (f"--{name}", str(value))]) == 0
    told = capsys.readouterr()
    assert "cells" in told.out
    assert f"fetching {NAME}@tokens-2e4" in told.err
    options["reference"] = f"{NAME}@tokens-3e4"
    assert gap([part for name, value in options.items() for part in (f"--{name}", str(value))]) == 2
    there = "there are main, tokens-0, tokens-1e4, tokens-2e4"
    assert f"--reference {NAME}@tokens-3e4: there is no such branch or commit; {there}" in capsys.readouterr().err
    hub_is_reachable_again()


LOADED = """
import sys, torch
from transformers import AutoModelForMaskedLM, AutoTokenizer
from safetensors.torch import load_file
name, folder = sys.argv[1:]
for revision, place in (("tokens-1e4", "annealed-10000"), ("tokens-0", "raw-0"), ("main", "annealed-20000")):
    model = AutoModelForMaskedLM.from_pretrained(name, revision=revision)
    own = load_file(f"{folder}/{place}/model.safetensors")
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in own.items()), revision
    print(revision, AutoTokenizer.from_pretrained(name, revision=revision)("red").input_ids)
"""


@pytest.mark.slow
def test_transformers_loads_every_branch_by_its_name(hub, tmp_path):
    """The promise of the page: `from_pretrained(repository, revision="tokens-1e4")`, in a process of its own."""
    write_series(tmp_path / "run", (10_000, 20_000), masked_lm=True)
    push_series(tmp_path / "run", HubPlace(NAME))
    command = [sys.executable, "-c", LOADED, NAME, str(tmp_path / "run" / "series")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["tokens-1e4", "tokens-0", "main"]


# In processes of their own, as when training goes on.


def job(**options):
    return {"series": "3e3,7e3", "push_to_hub": "true", "hub_model_id": NAME, **options}


@pytest.mark.slow
def test_the_training_waits_for_no_push(hub, tmp_path, monkeypatch):
    """A push of the next checkpoint begins when the one before has ended, and the last of them has all."""
    write_series(tmp_path / "run", (10_000,))
    said = []
    pusher = hub_process.SeriesPusher(tmp_path / "run", HubPlace(NAME), said.append)
    pusher.check()
    pusher.start()
    write_series(tmp_path / "run", (10_000, 20_000))
    begun = time.monotonic()
    pusher.start()
    assert time.monotonic() - begun < 0.5
    pusher.finish()
    assert sorted(hub.repositories[NAME].branches) == ["main", "tokens-0", "tokens-1e4", "tokens-2e4"]
    assert said[-1] == f"the series is on the hub: {NAME}"


def test_a_push_ends_with_the_run(hub, tmp_path):
    write_series(tmp_path / "run", (10_000,))
    pusher = hub_process.SeriesPusher(tmp_path / "run", HubPlace(NAME))
    pusher.start()
    process = pusher._process
    pusher.stop()
    assert process.returncode is not None


@pytest.mark.slow
def test_a_run_pushes_its_series_while_it_trains(hub, shards, tmp_path, capsys):
    in_process(shards, tmp_path / "run", job())
    said = capsys.readouterr().out
    assert sorted(hub.repositories[NAME].branches) == [
        "main", "tokens-0", "tokens-3000", "tokens-3000-raw", "tokens-7000", "tokens-7000-raw"
    ]  # fmt: skip
    weights = (tmp_path / "run" / "series" / "annealed-7000" / "model.safetensors").read_bytes()
    assert hub.files(NAME)["model.safetensors"] == weights
    assert f"the series is on the hub: {NAME}" in said
    hub.requests.clear()
    in_process(shards, tmp_path / "run", job())
    assert not [request for request in hub.requests if "/commit/" in request], "all was there"


@pytest.mark.slow
def test_fault_77_a_hub_that_is_away_while_a_run_pushes(hub, shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens: of the processes that push
    at_once = "import time; time.sleep = lambda seconds: None; "
    monkeypatch.setattr(hub_process, "PROGRAM", at_once + hub_process.PROGRAM)
    in_process(shards, tmp_path / "run", job(series="0"), status=1)
    told = capsys.readouterr()
    assert "training goes on" in told.out
    assert f"not all of it was pushed to {NAME}: {NAME} was not reached" in told.err
    assert "Run the same command again, or `launch/push.py" in told.err
    assert [entry["kind"] for entry in series(tmp_path / "run")] == ["raw", "annealed"]
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    in_process(shards, tmp_path / "run", job(series="0"))
    assert sorted(hub.repositories[NAME].branches) == ["main", "tokens-0", "tokens-7000"]


def test_a_token_that_may_not_write_is_refused_before_anything_is_trained(hub, shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of-somebody-else")
    in_process(shards, tmp_path / "run", job(), status=2)
    assert f"does not let this account do that with {NAME}" in capsys.readouterr().err
    assert not (tmp_path / "run" / "series.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hub_model_id": None}, "--push_to_hub: name the repository with --hub_model_id"),
        ({"push_to_hub": "false"}, "--hub_model_id lab/small does nothing with --push_to_hub false"),
        ({"hub_token": TOKEN}, "the token is read from HF_TOKEN"),
    ],
)
def test_options_that_cannot_be_meant(shards, tmp_path, capsys, options, words):
    with pytest.raises(SystemExit):
        in_process(shards, tmp_path / "run", job(**options))
    told = capsys.readouterr().err
    assert words in told
    assert TOKEN not in told
