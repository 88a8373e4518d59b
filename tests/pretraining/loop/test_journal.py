"""The journal: cut back to the checkpoint, torn lines left out, ordered by step and never by clock."""

import json
import math
import os
import re

import pytest
from pretraining_runs import in_process, write_shards

from pretraining.checkpoints import saving
from pretraining.loop.journal import Journal, read_journal


def lines(*serials):
    return [{"serial": serial, "loss": serial / 10, "seconds": 100.0 - serial} for serial in serials]


def test_cutting_back_drops_what_lies_beyond_the_checkpoint(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(lines(1, 2, 3))
    journal.append(lines(4, 5))
    journal.cut_back(3)
    journal.append(lines(4))
    assert read_journal(journal.path) == lines(1, 2, 3, 4)


def test_a_torn_last_line_is_left_out(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(lines(1, 2))
    whole = journal.path.read_bytes()
    text = json.dumps(lines(3)[0])
    for cut in range(len(text)):
        journal.path.write_bytes(whole + text[:cut].encode())
        journal.cut_back(9)
        assert read_journal(journal.path) == lines(1, 2)
        assert journal.path.read_bytes() == whole


def test_a_run_without_a_journal_has_nothing_to_cut(tmp_path):
    Journal(tmp_path / "journal.jsonl").cut_back(0)
    assert list(tmp_path.iterdir()) == []


def test_clocks_do_not_order_the_lines(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(lines(1, 2, 3))  # their seconds run backwards
    journal.cut_back(2)
    assert [line["serial"] for line in read_journal(journal.path)] == [1, 2]


def strictly(text):
    raise AssertionError(f"{text} is no JSON")


def test_what_is_not_finite_is_null_also_in_a_journal_that_holds_bare_nan(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.write_text('{"serial": 1, "loss": NaN, "rows": [0, 7]}\n')
    journal.append([{"serial": 2, "loss": math.nan, "gradient_norm": math.inf, "skipped": True, "rows": [8, 15]}])
    journal.cut_back(2)
    expected = [
        {"serial": 1, "loss": None, "rows": [0, 7]},
        {"serial": 2, "loss": None, "gradient_norm": None, "skipped": True, "rows": [8, 15]},
    ]
    found = [json.loads(line, parse_constant=strictly) for line in journal.path.read_text().splitlines()]
    assert found == read_journal(journal.path) == expected


def test_a_block_of_zeros_that_a_power_cut_left_is_left_out(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(lines(1, 2))
    with journal.path.open("ab") as file:
        file.write(b"\0" * 4096 + b"\xff\n")
    journal.cut_back(9)
    assert read_journal(journal.path) == lines(1, 2)


def test_it_is_on_the_disk_when_it_is_cut_back_or_asked_to_be(tmp_path, monkeypatch):
    synced, sync = [], os.fsync

    def spied(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", spied)
    journal = Journal(tmp_path / "journal.jsonl")
    journal.sync()
    assert synced == []
    journal.append(lines(1, 2))
    journal.sync()
    assert synced == [str(journal.path)]
    journal.cut_back(1)
    assert synced[1:] == [str(tmp_path / f".journal.jsonl.{os.getpid()}.tmp"), str(tmp_path)]


def test_the_journal_is_on_the_disk_before_a_checkpoint_is(tmp_path, monkeypatch):
    order, commit = [], saving._commit

    def spied(*given):
        order.append("checkpoint")
        commit(*given)

    monkeypatch.setattr(Journal, "sync", lambda journal: order.append("journal"))
    monkeypatch.setattr(saving, "_commit", spied)
    in_process(write_shards(tmp_path / "shards"), tmp_path / "run")
    assert order
    assert order == ["journal", "checkpoint"] * (len(order) // 2)


@pytest.mark.parametrize("damage", ["is missing", r"has no lines for \d+ of \d+ updates \(1 damaged"])
def test_a_run_that_goes_on_says_what_its_journal_lacks(tmp_path, capsys, damage):
    shards, run = write_shards(tmp_path / "shards"), tmp_path / "run"
    options = {"save_steps": 5}
    in_process(shards, run, options, fault="update.before:8:terminate", status=75)
    journal = run / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.unlink() if damage == "is missing" else journal.write_text("".join([*lines[:3], "null\n"]))
    capsys.readouterr()
    in_process(shards, run, options)
    assert re.search(f"warning: {journal} {damage}", capsys.readouterr().out)
