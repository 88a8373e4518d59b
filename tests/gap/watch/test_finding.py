"""Runs are found by their files, wherever they lie below the folder, and nothing inside a run is taken for one."""

import pytest

from gap.watch import finding
from gap.watch.finding import DEEPEST, find_runs, place_of, reader_of
from gap.watch.readers.finetuning_run import FinetuningReader
from gap.watch.readers.pretraining_run import PretrainingReader
from gap.watch.readers.shard_build import BuildReader
from gap.watch.readers.study_run import StudyReader
from gap.watch.readers.sweep_run import SweepReader


def found_in(root):
    found, is_cut = find_runs(root)
    assert not is_cut
    return {place_of(root, folder): reader for folder, reader in found.items()}


def test_every_kind_of_run_is_found(written):
    written.pretraining("a/pretraining", exported=2)
    written.study("a/study", done=1)
    written.study("a/pretraining/until")
    written.finetuning("b/qa")
    written.finetuning("b/series/seed-0")  # a folder of that name which is no run's
    written.sweep("b/sweep", ["finished"], total=2)
    written.build("shards")
    written.build("half", owner="here")
    assert found_in(written.root) == {
        "a/pretraining": PretrainingReader,
        "a/pretraining/until": StudyReader,
        "a/study": StudyReader,
        "b/qa": FinetuningReader,
        "b/series/seed-0": FinetuningReader,
        "b/sweep": SweepReader,
        "shards": BuildReader,
        "half": BuildReader,
    }


def test_the_folder_itself_may_be_a_run(written):
    assert found_in(written.pretraining("mine")) == {"mine": PretrainingReader}


def test_links_are_followed_and_circles_end(written, tmp_path):
    written.pretraining("here/run")
    (written.root / "here" / "back").symlink_to(written.root)
    (tmp_path / "far").mkdir()
    written.pretraining("../far/run")
    (written.root / "linked").symlink_to(tmp_path / "far")
    (written.root / "nowhere").symlink_to(tmp_path / "gone")
    assert set(found_in(written.root)) == {"here/run", "linked/run"}


def test_a_link_to_itself_hides_nothing(written):
    for number in range(9):  # whatever the order of the listing
        (written.root / f"link-{number}").symlink_to(f"link-{number}")
        written.pretraining(f"run-{number}")
    assert set(found_in(written.root)) == {f"run-{number}" for number in range(9)}


def test_a_folder_with_more_entries_than_are_looked_at_is_said(written, monkeypatch):
    monkeypatch.setattr(finding, "MOST_ENTRIES", 30)
    written.pretraining("run")
    found_in(written.root)
    for number in range(30):
        (written.root / f"file-{number}").touch()
    assert find_runs(written.root)[1]


def test_hidden_folders_environments_and_what_is_very_deep_are_left_out(written):
    written.pretraining(".trash/run")
    written.pretraining("env/run")
    (written.root / "env" / "pyvenv.cfg").touch()
    written.pretraining("/".join(["deep"] * DEEPEST) + "/run")
    assert found_in(written.root) == {}


@pytest.mark.parametrize("names", [set(), {"report.html"}, {"tokenizer"}, {"manifest.json"}, {"cells"}, {"run.json"}])
def test_other_folders_are_no_runs(names):
    assert reader_of(frozenset(names)) is None
