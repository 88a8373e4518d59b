"""The parser of options: each field becomes the arguments that `transformers.HfArgumentParser` makes of it."""

import argparse
import copy
from dataclasses import dataclass, field, fields
from typing import Literal, get_origin, get_type_hints

import pytest
from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from runtime.options.option_parser import NO, YES, OptionParser, as_bool, words_of
from tests.runtime.options.test_declaration import CLASSES


@dataclass
class Plain:
    needed: str
    rates: list[float]
    word: Literal["a", "b"] = "a"
    number: int | None = None
    counts: list[int] = field(default_factory=lambda: [1])
    on: bool = True
    off: bool = False
    unknown: bool | None = None
    known: bool | None = True


def actions_of_transformers(cls):
    """The arguments that HfArgumentParser adds for the fields, whose declarations it cannot read."""
    parser, hints = HfArgumentParser(), get_type_hints(cls)
    for item in fields(cls):
        plain = copy.copy(item)
        plain.metadata = words_of(item)
        plain.type = str if get_origin(hints[item.name]) is Literal else hints[item.name]
        parser._parse_dataclass_field(parser, plain)
    return parser._actions[1:]


def facts(action):
    names = ("option_strings", "dest", "nargs", "const", "default", "choices", "required", "metavar")
    negates = isinstance(action, argparse._StoreFalseAction)
    read = as_bool if action.type is string_to_bool else action.type
    return type(action), read, None if negates else action.help, *(getattr(action, name) for name in names)


@pytest.mark.parametrize("cls", [Plain, *CLASSES], ids=lambda cls: cls.__name__)
def test_a_field_becomes_the_arguments_that_transformers_makes_of_it(cls):
    own = OptionParser(cls)._actions[1:]
    assert list(map(facts, own)) == list(map(facts, actions_of_transformers(cls)))


def outcome(read, word):
    try:
        return read(word)
    except argparse.ArgumentTypeError as error:
        return str(error)


@pytest.mark.parametrize("word", [*YES, *NO, "True", "FALSE", "Y", "", "maybe", "2"])
def test_true_and_false_have_the_words_that_transformers_takes(word):
    assert outcome(as_bool, word) == outcome(string_to_bool, word)
