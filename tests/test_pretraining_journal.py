"""The journal: cut back to the checkpoint, torn lines left out, ordered by step and never by clock."""

import json

from pretraining.journal import Journal, read_journal


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
