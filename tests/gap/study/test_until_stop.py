"""--until: a request to stop during a look, and what is refused before anything is trained."""

import sys
import time

import pytest
from pretraining_runs import in_process, on_forked_ranks, write_shards

from gap.study import until
from launch import pretrain
from runtime.processes.interruption import Interrupted
from runtime.processes.ranks import Ranks
from tests.gap.study.test_until import entry, watch


def test_a_look_ends_on_all_ranks_when_one_is_told_to_stop(monkeypatch, tmp_path):
    one = watch(tmp_path)
    one.run.mkdir()

    def look(rank):
        one.ranks = Ranks(rank, rank, 2, 2)
        one.stop_requested = lambda: "SIGTERM" if rank == 1 else None
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        monkeypatch.setattr(until, "worker_command", lambda directory, count: command)
        monkeypatch.setattr(one, "_write_list", lambda: None)
        started = time.monotonic()
        with pytest.raises(Interrupted, match="SIGTERM"):
            one(entry(100.0))
        return time.monotonic() - started < 30

    assert on_forked_ranks(look, tmp_path, num_ranks=2) == [True, True]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--tasks", "qa:nowhere.json"], "nowhere.json"),
        (["--reference", "nowhere/model"], "--reference nowhere/model is not a local directory"),
    ],
)
def test_tasks_and_reference_are_read_before_training(monkeypatch, tiny_small_world, capsys, more, said):
    def unreachable(path, *_, **__):
        raise OSError("We couldn't connect to the hub")

    monkeypatch.setattr("pretraining.model.source.config.cached_file", unreachable)
    monkeypatch.setattr("pretraining.run.Run", lambda *_, **__: pytest.fail("training began"))
    argv = ["--output_dir", "out", "--until", "gap_closed>=0.9", "--reference", str(tiny_small_world), *more]
    assert pretrain.main(argv) == 2
    assert said in capsys.readouterr().err


def test_shards_whose_tokenizer_no_recipe_can_use_are_refused_before_training(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("pretraining.run.Run", lambda *_, **__: pytest.fail("training began"))
    options = {"until": "gap_closed>=0.9", "reference": tmp_path, "tasks": "qa:nowhere.json"}
    in_process(write_shards(tmp_path), tmp_path / "run", options, status=2)
    said = capsys.readouterr().err
    assert "--until cannot fine-tune with the shards' tokenizer" in said
    assert "no token in front of a pair" in said
