"""Pushing with the hub's real client to a stand-in of the hub: whole commits, nothing twice, and plain words."""

import hashlib
import inspect
import time

import pytest
from huggingface_hub import HfApi, ModelCard, constants
from servers.hub_server import TOKEN, hub_server

from runtime import hub_repository
from runtime.hub import push_problems, require_online, require_repository
from runtime.hub_repository import HubRepository, NotPushed, files_of, hub_card
from runtime.processes.failures import Failed

CARD = "---\nlibrary_name: transformers\n---\n# a model\n"
NAME = "lab/small"


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between tries, ours and those of the client
    with hub_server() as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text(CARD)
    (tmp_path / ".hidden").write_text("not for others")
    return tmp_path


def repository(hub, token=TOKEN, **options):
    made = HubRepository(NAME, api=HfApi(endpoint=hub.address, token=token), **options)
    made.create()
    return made


def test_a_branch_holds_what_was_pushed_in_one_commit_and_nothing_else(hub, folder):
    there = repository(hub, private=True)
    assert hub.repositories[NAME].private
    assert there.push({**files_of(folder), "more.json": b"[]"}, "main", "first")
    assert there.push(files_of(folder), "tokens-1e6", "a checkpoint")
    assert sorted(hub.files(NAME)) == [".gitattributes", "README.md", "config.json", "model.safetensors", "more.json"]
    assert hub.messages(NAME, "tokens-1e6") == ["a checkpoint", "initial commit"]
    assert hub.files(NAME, "tokens-1e6")["model.safetensors"] == b"weights"
    assert sorted(hub.files(NAME, "tokens-1e6")) == [".gitattributes", "README.md", "config.json", "model.safetensors"]


def test_what_is_there_is_not_pushed_again(hub, folder):
    there = repository(hub)
    there.push(files_of(folder), "a", "first")
    hub.requests.clear()
    assert not there.push(files_of(folder), "a", "again")
    assert not [request for request in hub.requests if request.startswith(("POST", "PUT"))]
    (folder / "config.json").write_text("[]")
    assert there.push(files_of(folder), "a", "another configuration")
    assert there.push(files_of(folder), "b", "another branch")
    assert hub.uploads == [hashlib.sha256(b"weights").hexdigest()], "the hub has these weights already"


def test_a_card_that_was_edited_there_stays(hub, folder):
    there = repository(hub)
    there.push(files_of(folder), "a", "first")
    (folder / "README.md").write_text(CARD + "another")
    assert not there.push(files_of(folder), "a", "again")
    assert hub.files(NAME, "a")["README.md"] == CARD.encode()


def test_other_weights_are_never_replaced_unless_they_are_ones_own(hub, folder):
    there = repository(hub)
    there.push(files_of(folder), "a", "first")
    (folder / "model.safetensors").write_bytes(b"weights of another run")
    with pytest.raises(ValueError, match=f"{NAME} at a holds other weights, which are left as they are: push to"):
        there.push(files_of(folder), "a", "second")
    assert hub.files(NAME, "a")["model.safetensors"] == b"weights"
    own = {hashlib.sha256(b"weights").hexdigest()}
    assert there.push(files_of(folder), "a", "second", replaceable=lambda: own)


@pytest.mark.parametrize("place", ["/preupload/", "/objects/batch", "/commit/", "/refs", "/tree/", "/upload/"])
def test_a_push_survives_failures_that_pass(hub, folder, place):
    there = repository(hub)
    hub.failing = [(place, 502), (place, 429)]
    assert there.push(files_of(folder), "a", "first")
    assert hub.failing == []
    assert len(hub.messages(NAME, "a")) == 2


def test_a_push_at_the_same_time_is_not_mixed_with_this_one(hub, folder, monkeypatch):
    there, create = repository(hub), HfApi.create_commit

    def after_another(self, *arguments, **options):
        monkeypatch.setattr(HfApi, "create_commit", create)
        hub.repositories[NAME].commit("a", {"model.safetensors": b"theirs"}, "of somebody else")
        return self.create_commit(*arguments, **options)

    monkeypatch.setattr(HfApi, "create_commit", after_another)
    with pytest.raises(ValueError, match=f"{NAME} at a holds other weights"):
        there.push(files_of(folder), "a", "ours")
    assert hub.files(NAME, "a")["model.safetensors"] == b"theirs"


def test_a_hub_that_stays_away_is_said_with_the_reason_and_never_with_the_token(hub, folder):
    there = repository(hub)
    hub.failing = [("/refs", 503)] * 99
    with pytest.raises(NotPushed, match=f"{NAME} was not reached .*503.*: push again once") as caught:
        there.push(files_of(folder), "a", "first")
    assert TOKEN not in str(caught.value)
    assert len([request for request in hub.requests if request.endswith("/refs")]) >= hub_repository.ATTEMPTS
    assert issubclass(NotPushed, Failed)


@pytest.mark.parametrize("token", ["hf_of-somebody-else", False])
def test_an_account_that_may_not_write_is_told_so_at_once(hub, token):
    with pytest.raises(
        ValueError, match=f"does not let this account do that with {NAME} .*: log in with `hf auth login`"
    ):
        repository(hub, token)
    assert len(hub.requests) <= 2


def test_nothing_is_pushed_offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="--push_to_hub: HF_HUB_OFFLINE is set"):
        require_online()
    with pytest.raises(NotPushed, match="HF_HUB_OFFLINE is set; unset it"):
        HubRepository(NAME).create()


@pytest.mark.parametrize("name", ["small", "a/b/c", "lab/", "lab/x y", "/tmp/x", "lab/x--y", ""])
def test_a_name_that_no_repository_can_have_is_refused(name):
    with pytest.raises(ValueError, match="--hub_model_id"):
        require_repository(name)


class Given:
    push_to_hub, hub_model_id, hub_private_repo, hub_license, hub_language = True, NAME, False, None, None

    def __init__(self, **options):
        vars(self).update(options)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"hub_model_id": None}, "--push_to_hub: name the repository with --hub_model_id OWNER/NAME"),
        ({"hub_license": "Apache 2.0"}, "--hub_license Apache 2.0: write the hub's name for it"),
        ({"hub_language": "en,English"}, "--hub_language English: write codes"),
    ],
)
def test_contradictions_of_the_options(options, problem):
    assert [text[: len(problem)] for text in push_problems(Given(**options))] == [problem]
    assert push_problems(Given(hub_license="apache-2.0", hub_language="en, zh-Hant")) == []


def test_a_card_gets_its_place_and_what_was_given():
    text = f'{CARD}\nmodel = X.from_pretrained("this folder")\nload("this folder")\n'
    card = ModelCard(hub_card(text, NAME, "tokens-1e6", license="mit", language="en,de", more="## End\n"))
    assert card.data.to_dict() == {"library_name": "transformers", "license": "mit", "language": ["en", "de"]}
    assert 'from_pretrained("lab/small", revision="tokens-1e6")' in card.text
    assert 'load(snapshot_download("lab/small", revision="tokens-1e6"))' in card.text
    assert card.text.endswith("## End\n")
    assert 'from_pretrained("lab/small")' in hub_card(text, NAME)
    assert "license" not in hub_card(text, NAME)
    assert ModelCard(hub_card("", NAME)).data.library_name == "transformers", "an export of an earlier version"


def test_the_client_has_what_is_asked_of_it():
    """The names and arguments that this project uses, of the oldest client that it accepts and of the newest."""
    used = {
        "create_repo": {"private", "exist_ok"},
        "create_branch": {"branch", "revision", "exist_ok"},
        "create_commit": {"operations", "commit_message", "revision", "parent_commit"},
        "list_repo_tree": {"recursive", "revision"},
        "list_repo_refs": {"repo_id"},
        "list_repo_commits": {"repo_id"},
    }
    for name, arguments in used.items():
        assert arguments <= inspect.signature(getattr(HfApi, name)).parameters.keys(), name
