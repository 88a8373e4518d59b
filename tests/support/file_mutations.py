"""Files changed by hypothesis: a clear ValueError that names the file, or a reading, in bounded time and memory."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from runtime.files.foreign import printable

STRANGE = (
    *(None, [], {}, 0, -1, 10**12, 1 << 70, 10**400, 1.5, 1e308, float("nan"), float("inf"), True, "", "x", "../x"),
    *("\0", "\ud800", "y" * 5000, [1], [None], {"a": 1}, {"a": {}}, [[[[]]]], "1" * 30, "step-00000001-000"),
)
PIECES = (
    *(b"null", b"[", b"{", b"1e999", b"-1", b'"x"', b"NaN", b",", b"\n", b"\x00", b"\xff", b"9" * 5000, b"[" * 3000),
    *(b'"', b"\t", b"\r", b"}", b"]", b":", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"<doc ", b"&a ", b"*a"),
)
WHOLES = (
    *(b"", b" ", b"\n", b"null", b"[]", b"{}", b'"x"', b"7", b"[" * 100_000, b'{"a":' * 100_000, b"\x00" * 5000),
    *(b"version https://git-lfs.github.com/spec/v1\n", b"<html>Sign in</html>", b"\x1f\x8b", b"PK\x03\x04", b"PAR1"),
    *(b"BZh9", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\x80\x04."),
)
CPU_SECONDS = 10.0
LARGEST_GROWTH = 400 << 20  # bytes of memory in use at once, above what the process had before the file was read
LARGEST_ADDRESSES = 3 << 30  # bytes of addresses: an array that is asked for and never filled
LONGEST_MESSAGE = 1000

# Mutations of a file: a handful in every run, more in the slow suite, and those of `make test-long`.
few_and_many = pytest.mark.parametrize(
    "rounds", [5, pytest.param(50, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.long)]
)


class TooLong(BaseException):
    """The reader was still busy; not an Exception, which a reader might catch."""


def places_of(value: Any, place: tuple = ()) -> Iterator[tuple]:
    """Where something stands in parsed JSON, the whole first."""
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from places_of(inner, (*place, name))


def changed_at(value: Any, place: tuple, change: str, strange: Any) -> Any:
    """The same value with what stands at `place` replaced, removed, doubled, or joined by a stranger."""
    if not place:
        if change == "join" and isinstance(value, dict):
            return {**value, "of_a_later_version": strange}
        return [*value, strange] if change == "join" and isinstance(value, list) else strange
    name, rest = place[0], place[1:]
    if rest or change in ("replace", "join"):
        inner = changed_at(value[name], rest, change, strange)
        return {**value, name: inner} if isinstance(value, dict) else [*value[:name], inner, *value[name + 1 :]]
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if key != name}
        return kept if change == "remove" else {**kept, "of_a_later_version": value[name]}
    return [*value[:name], *([value[name]] * 2 if change == "double" else []), *value[name + 1 :]]


def changed_values(value: Any) -> st.SearchStrategy[Any]:
    """Parsed JSON with one or two parts, anywhere in it, changed; the simplest is null in place of everything."""
    one = st.tuples(
        st.integers(0, 1 << 20),
        st.sampled_from(("replace", "replace", "replace", "remove", "double", "join")),
        st.sampled_from(STRANGE),
    )

    def changed(edits: list[tuple[int, str, Any]]) -> Any:
        result = value
        for number, change, strange in edits:
            places = list(places_of(result))
            result = changed_at(result, places[number % len(places)], change, strange)
        return result

    return st.lists(one, min_size=1, max_size=2).map(changed)


def changed_bytes(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of which some are replaced, removed, added, doubled or cut off, often near the start or the end."""
    last = max(len(data) - 1, 0)
    place = st.one_of(st.integers(0, min(last, 400)), st.integers(0, last), st.integers(max(last - 400, 0), last))
    edit = st.tuples(
        place,
        st.sampled_from(("cut", "replace", "remove", "double", "insert", "flip")),
        st.integers(1, 60),
        st.sampled_from(PIECES),
        st.integers(0, 255),
    )

    def changed(edits: list[tuple[int, str, int, bytes, int]]) -> bytes:
        result = bytearray(data)
        for start, change, length, piece, byte in edits:
            start = min(start, len(result))
            if change == "cut":
                del result[start:]
            elif change == "remove":
                del result[start : start + length]
            elif change == "double":
                result[start:start] = result[start : start + length]
            elif change == "insert":
                result[start:start] = piece
            elif start < len(result):
                result[start] = byte if change == "replace" else result[start] ^ (1 << byte % 8)
        return bytes(result)

    return st.lists(edit, min_size=1, max_size=3).map(changed)


def changed_json(data: bytes) -> st.SearchStrategy[bytes]:
    """JSON, or a line of JSON lines, with other values in it."""
    lines = data.splitlines() if data.count(b"\n") and data.splitlines()[0].endswith((b"}", b"]")) else [data]

    def at(number: int) -> st.SearchStrategy[bytes]:
        made = changed_values(json.loads(lines[number])).map(lambda value: json.dumps(value).encode())
        return made.map(lambda line: b"\n".join([*lines[:number], line, *lines[number + 1 :]]) + b"\n")

    return st.integers(0, len(lines) - 1).flatmap(at)


def mutations(data: bytes) -> st.SearchStrategy[bytes]:
    """Whatever a file may become: JSON with other values, other bytes, or another file altogether."""
    changes = [changed_bytes(data), changed_bytes(data), st.sampled_from(WHOLES)]
    try:
        json.loads(data.splitlines()[0] if data.count(b"\n") > 1 and data.startswith(b"{") else data)
    except ValueError:
        is_json = data.startswith(b"{\n") and data.rstrip().endswith(b"}")
    else:
        is_json = True
    return st.one_of(*([changed_json(data)] * 3 if is_json else []), *changes)


def peak_bytes() -> int:
    """The most memory that the process had in use since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def forget_peak() -> int:
    """Begin to measure; the memory in use now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # a system without it: the peak of the whole process
        return peak_bytes()
    return peak_bytes()


@contextmanager
def bounded() -> Iterator[None]:
    """AssertionError for what takes over CPU_SECONDS, LARGEST_GROWTH of memory or LARGEST_ADDRESSES."""

    def stop(*_: Any) -> None:
        raise TooLong

    before = forget_peak()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    earlier = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (now + LARGEST_ADDRESSES, hard))
    try:
        yield
    except (TooLong, MemoryError) as error:
        raise AssertionError(f"no answer within {CPU_SECONDS} s and {LARGEST_ADDRESSES:,} bytes: {error!r}") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, earlier)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    growth = peak_bytes() - before
    assert growth < LARGEST_GROWTH, f"{growth:,} bytes"


def refusals(
    path: Path,
    read: Callable[[], Any],
    rounds: int,
    *,
    named: str | None = None,
    or_named: str | None = None,
    least: float = 0.2,
    longest: int = LONGEST_MESSAGE,
    most_lines: int = 1,
) -> list[str]:
    """What `read` says to mutations of the file; AssertionError for whatever but a reading or a clear ValueError.

    `read` is also called with the file as it is, which it takes. `named` is what a refusal must name: the file. A
    refusal may say `or_named` instead. At `least` this share must be refused.
    """
    whole, said, named = path.read_bytes(), [], named or str(path)
    read()

    @seed(zlib.crc32(path.name.encode()))
    @settings(
        max_examples=rounds,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(mutation=mutations(whole))
    def is_read_or_refused(mutation: bytes) -> None:
        path.unlink(missing_ok=True)  # a reader may still have the one before mapped into memory
        path.write_bytes(mutation)
        with bounded():
            try:
                read()
            except ValueError as error:
                text = str(error)
            except Exception as error:
                raise AssertionError(f"{type(error).__name__}: {error}") from error
            else:
                return
        said.append(text)
        assert named in text or (or_named is not None and or_named in text), text[:500]
        text = printable(text)  # as a command says it
        assert len(text) < longest + len(named), text[:1200]
        assert text.count("\n") < most_lines, text[:500]
        text.encode()

    try:
        is_read_or_refused()
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
    print(f"{path.name}: {len(said)} of {rounds} refused", file=sys.stderr)
    assert len(said) >= rounds * least - 1, f"{len(said)} of {rounds}: mutations that are hardly ever refused are none"
    return said
