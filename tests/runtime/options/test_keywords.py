"""Options as keywords of a function: what a value may be, and what is said of one that may not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from runtime.options.declaration import Options, option
from runtime.options.keywords import Settings, Several, Words, keyword_type, options_of


@dataclass(frozen=True)
class KeywordOptions(Options):
    """Options of every kind."""

    place: str | None = option(None, "a folder")
    names: list[str] = option([], "some names")
    seeds: list[int] = option([], "some seeds")
    rate: float = option(0.1, "a rate", above=0)
    rows: int | None = option(None, "rows", at_least=1)
    chosen: str = option("auto", "a choice", choices=("auto", "true", "false"))
    kind: Literal["one", "two"] = option("one", "a kind", choices=("one", "two"))
    series: str | None = option(None, "numbers", commas=True)
    overrides: str | None = option(None, "settings", commas=True, settings=True)
    epochs: float = option(3.0, "epochs")
    minutes: float = option(10, "minutes, whose default is a whole number")
    quiet: bool = option(False, "say nothing", formerly=("silent",))


def given(**keywords):
    return options_of(KeywordOptions, None, keywords, function="call", replaced={"lr": "use rate"}.get)


@pytest.mark.parametrize(
    ("keyword", "value", "field"),
    [
        ("place", Path("a/b"), "a/b"),
        ("place", None, None),
        ("names", "a.txt", ["a.txt"]),
        ("names", Path("a"), ["a"]),
        ("names", (Path("a"), "b"), ["a", "b"]),
        ("seeds", (1, np.int64(2))[:1], [1]),
        ("rate", 1, 1.0),
        ("rate", np.float32(0.5), 0.5),
        ("rows", np.int64(3), 3),
        ("minutes", 10.0, 10),
        ("minutes", 4, 4.0),
        ("chosen", True, "true"),
        ("chosen", "auto", "auto"),
        ("kind", "two", "two"),
        ("series", 6, "6"),
        ("series", [1e5, 400_000, "1e6"], "100000.0,400000,1e6"),
        ("series", "1,2", "1,2"),
        ("overrides", {"layers": 2}, '{"layers": 2}'),
        ("overrides", "layers=2", "layers=2"),
        ("quiet", True, True),
    ],
)
def test_a_value_is_taken_as_the_command_takes_it(keyword, value, field):
    taken = getattr(given(**{keyword: value}), keyword)
    assert (taken, type(taken)) == (field, type(field))


@pytest.mark.parametrize(
    ("keyword", "value", "said"),
    [
        ("place", 3, "place=3 is a int: give a text"),
        ("place", True, "give a text"),
        ("names", 3, "give a list of texts"),
        ("names", [3], "give a list of texts"),
        ("seeds", [1.5], "give a list of whole numbers"),
        ("seeds", "1", "give a list of whole numbers"),
        ("rate", "0.1", "rate='0.1' is a str: give a number"),
        ("rate", None, "rate=None is a NoneType: give a number"),
        ("rate", True, "give a number"),
        ("rate", np.ones(2), "give a number"),
        ("rows", 1.0, "give a whole number"),
        ("quiet", 1, "give True or False"),
        ("kind", 1, "give one of the words"),
        ("series", [], "give a text, a number, or a list of them"),
        ("series", {"a": 1}, "give a text, a number, or a list of them"),
        ("overrides", 3, "or a mapping"),
    ],
)
def test_a_value_of_another_type_is_a_type_error(keyword, value, said):
    with pytest.raises(TypeError, match=said):
        given(**{keyword: value})


def test_what_the_dataclass_refuses_is_its_value_error():
    with pytest.raises(ValueError, match=r"--rate 0.0: use above 0; --rows 0: use at least 1"):
        given(rate=0, rows=0)
    with pytest.raises(ValueError, match="--kind three: use one of one, two"):
        given(kind="three")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("silent", "call() has no option 'silent': it was renamed to quiet"),
        ("lr", "call() has no option 'lr': use rate"),
        ("plase", "did you mean place?"),
        ("xxxxxxxxx", "call() has no option 'xxxxxxxxx'"),
    ],
)
def test_an_unknown_name_is_explained(name, said):
    with pytest.raises(TypeError) as error:
        given(**{name: 1})
    assert str(error.value).endswith(said)


def test_options_are_given_once():
    whole = KeywordOptions(rate=0.5)
    assert options_of(KeywordOptions, whole, {}, function="call") is whole
    counted = options_of(KeywordOptions, KeywordOptions(rate=1, epochs=3, minutes=10), {}, function="call")
    assert (repr(counted.rate), repr(counted.epochs), repr(counted.minutes)) == (
        "1.0",
        "3.0",
        "10",
    )  # as the command has them
    with pytest.raises(TypeError, match="got options and also rate: give one or the other"):
        options_of(KeywordOptions, whole, {"rate": 0.5}, function="call")
    with pytest.raises(TypeError, match="takes KeywordOptions or keywords, not dict"):
        options_of(KeywordOptions, {"rate": 0.5}, {}, function="call")


def test_the_types_of_keywords():
    from dataclasses import fields
    from typing import get_type_hints

    hints = get_type_hints(KeywordOptions)
    types = {item.name: keyword_type(item, hints[item.name]) for item in fields(KeywordOptions)}
    assert types["place"] == Words | None
    assert types["rate"] is float
    assert types["chosen"] == Literal["auto", "true", "false"] | bool
    assert types["series"] == Several | None
    assert types["overrides"] == Settings | None
    assert types["kind"] == Literal["one", "two"]
