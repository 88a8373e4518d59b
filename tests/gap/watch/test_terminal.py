"""The lines: one for each run, cut to the terminal, redrawn in place, printed once elsewhere."""

import io
import os
import re

import pytest

from gap.watch import terminal
from gap.watch.board import Board
from gap.watch.terminal import bar, fitted, lines_of, print_lines, width_of
from gap.watch.wording import ago, amount, duration, size


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def screen(self):
        """What is seen after all escapes were obeyed."""
        rows, row = [""], 0
        for part in re.findall(r"\x1b\[\d*[A-Z]|\n|\r|[^\x1b\n\r]+", self.getvalue()):
            if part == "\n":
                row += 1
                rows += [""] * (row + 1 - len(rows))
            elif part.endswith("A") and part.startswith("\x1b"):
                row -= int(part[2:-1])
                assert row >= 0
            elif part == "\x1b[2K":
                rows[row] = ""
            elif part != "\r":
                rows[row] = part
        return [text for text in rows if text]


class Ended(Exception):
    pass


def test_one_line_for_each_run(written):
    written.pretraining("mine", updates=80, exported=2)
    written.study("study", done=3, owner="gone")
    head, *lines = lines_of(Board(written.root).look())
    assert head.endswith("  1 running, 1 stale")
    assert lines[0].startswith(
        "> running     mine  [#######...]  69 %  800 of 1 k tokens; 20 s left; loss 8.295; held-out"
    )
    assert lines[1].startswith("? stale       study [#####.....]  50 %  3 of 6 cells; its process is gone (pid ")


def test_it_is_printed_once_where_there_is_no_terminal(written):
    written.pretraining("mine")
    out = io.StringIO()
    assert print_lines(Board(written.root), once=False, out=out) == 0
    assert out.getvalue().count("\n") == 2
    assert "\x1b" not in out.getvalue()
    again = Terminal()
    assert print_lines(Board(written.root), once=True, out=again) == 0
    assert "\x1b" not in again.getvalue()


def test_a_terminal_is_redrawn_in_place(written, monkeypatch):
    folder = written.pretraining("mine", updates=10)
    written.pretraining("gone", updates=10)
    board, out, looks = Board(written.root, every=0.0), Terminal(), []

    def next_look(seconds):
        looks.append(out.screen())
        board._find_at = 0.0
        if len(looks) == 1:
            with (folder / "journal.jsonl").open("a") as file:
                file.write('{"serial": 99, "segment": "trunk", "tokens": 990, "loss": 1.0}\n')
        elif len(looks) == 2:
            (written.root / "gone").rename(written.root / ".gone")
        else:
            raise Ended

    monkeypatch.setattr(terminal.time, "sleep", next_look)
    monkeypatch.setattr(terminal.shutil, "get_terminal_size", lambda *given, **named: os.terminal_size((80, 24)))
    with pytest.raises(Ended):
        print_lines(board, once=False, out=out)
    assert [len(look) for look in looks] == [3, 3, 2]
    assert "100 of 1 k" in looks[0][2]
    assert "990 of 1 k" in looks[1][2]
    assert all(len(line) < 80 for look in looks for line in look)


def test_lines_fit_a_small_terminal():
    lines = [f"line {number} " + "x" * 100 for number in range(30)]
    shown = fitted(lines, 40, 10)
    assert len(shown) == 9
    assert shown[-1] == "... and 22 more"
    assert all(len(line) < 40 for line in shown)
    assert fitted(lines[:3], 400, 10) == lines[:3]
    assert fitted(["维基百科" * 5], 20, 10) == ["维基百科" * 2 + "..."]


def test_names_are_escaped_and_bars_are_full_at_the_end_only(written):
    written.pretraining("evil\x1b[2Jname\nx")
    text = "\n".join(lines_of(Board(written.root).look()))
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2
    assert bar(0.999) == "[##########]  99 %"
    assert bar(1.7) == "[##########] 100 %"
    assert bar(None).strip() == ""
    assert width_of("a/very/long/name", 10) == "...ng/name"


@pytest.mark.parametrize(
    ("text_of", "values", "texts"),
    [
        (amount, (0, 12.5, 999.96, 12_345_678, 2e12), ["0", "12.5", "1 k", "12.3 M", "2 T"]),
        (size, (0, 999, 1000, 1_234_567, 5e15), ["0 bytes", "999 bytes", "1 kB", "1.23 MB", "5 PB"]),
        (duration, (7, 70, 7500, 1e5, 1e8), ["7 s", "1 min 10 s", "2 h 05 min", "1 d 3 h", "1,157 d"]),
        (ago, (3, 45, 70, 9000, 2e5), ["just now", "45 s ago", "1 min ago", "2 h ago", "2 d ago"]),
    ],
)
def test_numbers_read_well(text_of, values, texts):
    assert [text_of(value) for value in values] == texts
