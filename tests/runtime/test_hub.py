"""An unreachable hub is asked once, and paths that are here are never asked for."""

import pytest

from finetuning.examples.dataset_records import read_dataset
from finetuning.model import checkpoint_files
from gap.cells.job_list import model_digest
from pretraining.model.configuration import configuration_from
from runtime import hub
from shards.tokenization.vocabulary import load_tokenizer


@pytest.fixture
def asked(monkeypatch):
    """The addresses that were asked for, of a hub without a network."""
    found = []

    class Unplugged:
        def head(self, address, timeout):
            found.append(address)
            raise ConnectionError("no route")

    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "get_session", Unplugged)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    hub.hub_is_reachable.cache_clear()
    yield found
    hub.hub_is_reachable.cache_clear()


def test_an_unreachable_hub_is_asked_once_by_all_layers_together(asked):
    for number in range(2):
        with pytest.raises(ValueError, match=r"--model_name_or_path nobody/nothing .* the hub did not deliver it"):
            checkpoint_files.load_tokenizer("nobody/nothing")
        assert len(asked) == 1, number
        with pytest.raises(ValueError, match="--dataset_name nobody/nothing: not a saved data set"):
            read_dataset("nobody/nothing")
        with pytest.raises(ValueError, match="model hub did not deliver it"):
            model_digest("nobody/nothing")
        with pytest.raises(ValueError, match=r"the hub did not deliver it .*Download it"):
            configuration_from("nobody/nothing")
        with pytest.raises(ValueError, match="--tokenizer nobody/nothing cannot be loaded"):
            load_tokenizer("nobody/nothing")
    assert len(asked) == 1


@pytest.mark.parametrize("read", [configuration_from, checkpoint_files.load_tokenizer, read_dataset])
def test_a_mistyped_directory_is_said_at_once(asked, tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/pretrian", "./pretrian", "a/b/c"):
        with pytest.raises(ValueError, match=f"{name}:? (no such directory|does not exist)"):
            read(name)
    assert asked == []


def test_a_path_that_is_here_is_not_asked_for(asked, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert configuration_from(str(tmp_path)).model_type == "bert"
    assert hub.local_files_only(str(tmp_path))
    assert asked == []
