"""A journal is read as it grows: each line once, half lines not at all, long files in bounded memory and work."""

import json

import pytest

from gap.watch import journal_tail
from gap.watch.journal_tail import MOST_POINTS, SAMPLES, JournalTail, ThinnedCourse
from pretraining.loop.journal import PretrainingJournalLine


def line(number, loss=1.0):
    return json.dumps({"serial": number, "segment": "trunk", "tokens": number, "loss": loss}) + "\n"


def tail_of(path):
    return JournalTail(
        path, PretrainingJournalLine, place_of=lambda one: (one["segment"], one["tokens"]), names=("loss",)
    )


def points(tail):
    return tail.courses["trunk"]["loss"].points()


def test_what_is_appended_is_read_once_and_half_a_line_is_not(tmp_path):
    path = tmp_path / "journal.jsonl"
    tail = tail_of(path)
    tail.read()
    assert not tail.courses
    text = "".join(line(number, number / 7) for number in range(200))
    for end in range(0, len(text) + 333, 333):
        path.write_text(text[:end])
        tail.read()
    assert points(tail) == tuple((float(number), number / 7) for number in range(200))
    assert tail.last["tokens"] == 199
    assert tail.damaged == 0


def test_a_journal_that_was_cut_back_is_read_from_its_beginning(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(map(line, range(50))))
    tail = tail_of(path)
    tail.read()
    (tmp_path / "new").write_text("".join(map(line, range(60, 160))))
    (tmp_path / "new").replace(path)
    tail.read()
    assert [x for x, _ in points(tail)] == list(range(60, 160))
    path.unlink()
    tail.read()
    assert not tail.courses


def test_damaged_lines_are_counted_and_skipped(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(line(1) + "{torn\n" + "[1]\n\n" + '{"serial": -1}\n' + line(2, None) + line(3))
    tail = tail_of(path)
    tail.read()
    assert [x for x, _ in points(tail)] == [1, 3]
    assert tail.damaged == 3


def test_a_line_without_end_is_passed_over(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"x" * (5 << 20))
    tail = tail_of(path)
    for number in range(3):
        tail.read()
        with path.open("a") as file:
            file.write(f"\n{line(number)}")
    tail.read()
    assert [one["tokens"] for one in tail.recent] == [0, 1, 2]


def test_a_long_journal_is_sampled_in_bounded_work(tmp_path, monkeypatch):
    path, total = tmp_path / "journal.jsonl", 60_000
    path.write_text("".join(line(number, 10 - number / total) for number in range(total)))
    parsed = []
    whole = journal_tail.sound_line
    monkeypatch.setattr(journal_tail, "sound_line", lambda *of: parsed.append(1) or whole(*of))
    monkeypatch.setattr(journal_tail, "SAMPLE_BYTES", 300)
    monkeypatch.setattr(journal_tail, "LAST_BYTES", 10_000)
    tail = tail_of(path)
    tail.read()
    assert tail.is_sampled
    assert tail.last["tokens"] == total - 1
    assert len(parsed) < total / 20
    shown = points(tail)
    assert SAMPLES / 2 < len(shown) <= MOST_POINTS
    assert shown[0][0] < total / 100
    assert all(loss == pytest.approx(10 - tokens / total, abs=1e-6) for tokens, loss in shown)
    with path.open("a") as file:
        file.write(line(total))
    parsed.clear()
    tail.read()
    assert len(parsed) == 1


@pytest.mark.parametrize("number", [1, 480, 481, 5000])
def test_a_thinned_course_has_bounded_points_and_keeps_the_mean(number):
    course = ThinnedCourse(100)
    for x in range(number):
        course.add(float(x), 2.0 * x)
    shown = course.points()
    assert len(shown) <= 100
    assert shown[0][0] < course.width
    assert all(y == 2 * x for x, y in shown)
    assert [x for x, _ in shown] == sorted(x for x, _ in shown)
