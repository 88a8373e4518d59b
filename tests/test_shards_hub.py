"""An unreachable hub is asked once, and paths that are here are never asked for."""

import pytest

from pretraining.configuration import configuration_from
from shards import hub
from shards.vocabulary import load_tokenizer


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
    hub.hub_is_reachable.cache_clear()
    yield found
    hub.hub_is_reachable.cache_clear()


def test_an_unreachable_hub_is_asked_once(asked):
    for _ in range(2):
        with pytest.raises(ValueError, match=r"the hub did not give it .*Download it"):
            configuration_from("nobody/nothing")
    with pytest.raises(ValueError, match="--tokenizer nobody/nothing cannot be loaded"):
        load_tokenizer("nobody/nothing")
    assert len(asked) == 1


def test_a_path_that_is_here_is_not_asked_for(asked, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert configuration_from(str(tmp_path)).model_type == "bert"
    assert hub.local_files_only(str(tmp_path))
    assert asked == []
