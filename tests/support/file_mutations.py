"""A file of ours, changed at random: a clear ValueError that names it, or a reading, and nothing else."""

import json
import random
import time
from pathlib import Path

import pytest

STRANGE = (
    *(None, [], {}, 0, -1, 10**12, 1 << 70, 10**400, 1.5, 1e308, float("nan"), float("inf"), True, "", "x", "../x"),
    *("\0", "\ud800", "y" * 5000, [1], [None], {"a": 1}, {"a": {}}, [[[[]]]], "1" * 30, "step-00000001-000"),
)
PIECES = (b"null", b"[", b"{", b"1e999", b"-1", b'"x"', b"NaN", b",", b"\n", b"\x00", b"\xff", b"9" * 5000, b"[" * 3000)
LONGEST_SECONDS = 10


# How many mutations a file: few in every run, many in the slow ones.
few_and_many = pytest.mark.parametrize("rounds", [50, pytest.param(1000, marks=pytest.mark.slow)])


def changed_value(value, generator):
    """The same with one part, anywhere in it, replaced by an odd value, removed, or followed by an odd value."""
    if isinstance(value, dict) and value and generator.random() < 0.85:
        key = generator.choice(list(value))
        if generator.random() < 0.1:
            return {name: inner for name, inner in value.items() if name != key}
        if generator.random() < 0.1:
            return {**value, "of_a_later_version": generator.choice(STRANGE)}
        return {**value, key: changed_value(value[key], generator)}
    if isinstance(value, list) and value and generator.random() < 0.75:
        place = generator.randrange(len(value))
        return [*value[:place], changed_value(value[place], generator), *value[place + 1 :]]
    return generator.choice(STRANGE)


def changed_bytes(data, generator):
    """The same with bytes replaced, removed, added, doubled, or cut off."""
    data = bytearray(data)
    for _ in range(generator.randint(1, 3)):
        place, kind = generator.randrange(len(data)), generator.randrange(5)
        if kind == 0:
            data[place] = generator.randrange(256)
        elif kind == 1:
            del data[place : place + generator.randint(1, 30)]
        elif kind == 2:
            data[place:place] = generator.choice(PIECES)
        elif kind == 3:
            data[place:place] = data[place : place + generator.randint(1, 60)]
        else:
            del data[place + 1 :]
        data = data or bytearray(b"x")
    return bytes(data)


def changed(data: bytes, generator: random.Random) -> bytes:
    """A mutation of JSON or JSON lines."""
    if generator.random() < 0.4:
        return changed_bytes(data, generator)
    lines = data.splitlines() if data.count(b"\n") and data.splitlines()[0].endswith(b"}") else [data]
    place = generator.randrange(len(lines))
    lines[place] = json.dumps(changed_value(json.loads(lines[place]), generator)).encode()
    return b"\n".join(lines) + b"\n"


def refusals(path: Path, read, rounds: int, *, named: str | None = None) -> list[str]:
    """The outcomes of `read` on mutations of the file; AssertionError unless it reads or raises a clear ValueError.

    `read` is also called with the file as it is, which it takes. `named` is what a refusal must name: the file.
    """
    whole, found, named = path.read_bytes(), [], named or str(path)
    read()
    generator = random.Random(path.name)
    try:
        for _ in range(rounds):
            path.write_bytes(mutation := changed(whole, generator))
            started = time.monotonic()
            try:
                read()
            except ValueError as error:
                found.append(str(error))
            except Exception as error:
                raise AssertionError(f"{type(error).__name__}: {error}: {mutation[:2000]!r}") from error
            assert time.monotonic() - started < LONGEST_SECONDS, mutation[:500]
            for text in found[-1:]:
                assert named in text, (text[:500], mutation[:500])
                assert len(text) < 1000 + len(named), text[:1200]
                assert "\n" not in text, text
                text.encode()  # it can be printed
    finally:
        path.write_bytes(whole)
    assert len(found) > rounds / 5, "mutations that are hardly ever refused are none"
    return found
