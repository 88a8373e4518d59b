"""The declaration of an option: default, help, heading, choices, range, and whether it is part of a run's identity.

All about a single option is in its field. Where several commands have it, the first declares it with `option`; the
others refer to that with `option_as_in` and name what is different there. Rules between several options are in
`Options.contradictions`, or in a check that also sees the ranks and the data.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any, Literal, get_args

DECLARED = "declared"  # the key of a field's metadata

# The headings of --help. A command may add its own.
DATA, MODEL, TRAINING = "data", "model", "training"
MACHINE, OUTPUT = "precision, memory and machine", "output and resume"
HUB = "model hub"
PRECISIONS = ("auto", "true", "false")  # of --bf16
ALL_SEEDS = 1 << 63  # seeds are below: what torch.Generator takes
BadText = Literal["stop", "replace"]
BAD_TEXT: tuple[BadText, ...] = get_args(BadText)  # of --on_bad_text


@dataclass(frozen=True)
class Declaration:
    """Everything about one option except its name, type, default and help."""

    group: str = "options"  # its heading in --help
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None  # infinity: any finite number
    what: str = ""  # the value in words: "a share of the updates"
    identity: bool | str = True  # False: free to change when a run is resumed; a word: its name in identities
    later: bool = (
        False  # added when runs had identities already: its default is not in them, so that they stay the same
    )
    commas: bool = False  # several values, separated by commas; in a file of options also a list
    settings: bool = False  # of name=value pairs; in a file of options and in Python also a mapping
    by_data: Mapping[str, Any] = field(default_factory=dict)  # kind of data -> the value if none is given
    formerly: tuple[str, ...] = ()  # its earlier names
    old_values: Mapping[str, str] = field(default_factory=dict)  # earlier words -> their present ones
    marks: frozenset[str] = frozenset()  # further properties, for code that passes options on

    @property
    def range(self) -> str:
        """The range in words; empty if every number is allowed."""
        bounds = [("at least", self.at_least), ("above", self.above), ("at most", self.at_most), ("below", self.below)]
        words = " and ".join(f"{word} {bound}" for word, bound in bounds if bound not in (None, math.inf))
        return f"a finite number, {words}" if self.below == math.inf else words

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def complaint(self, name: str, value: Any) -> str | None:
        """What is wrong with one value, as "--name value: the rule"; None if nothing is."""
        if isinstance(value, float) and math.isnan(value):
            return f"--{name} nan is not a number: give one, or leave the option out"
        if str(value) in self.old_values:
            return f"--{name} {value}: this value was renamed to {self.old_values[str(value)]}; use that"
        if self.choices and value not in self.choices:
            return f"--{name} {value or repr(value)}: use one of {', '.join(self.choices)}"
        if self.range and not isinstance(value, str) and not self.holds(value):
            return f"--{name} {value}: use {self.range}" + (f", {self.what}" if self.what else "")
        return None

    def complaints(self, name: str, value: Any) -> Iterator[str]:
        """What is wrong with a value, or with each of several."""
        parts = [value]
        if self.commas and self.choices and isinstance(value, str):
            parts = [part.strip() for part in value.split(",") if part.strip()] or [value]
        elif isinstance(value, list):
            parts = value
        yield from (text for part in parts if part is not None and (text := self.complaint(name, part)))


def option(
    default: Any,
    help: str,
    *,
    group: str = "options",
    choices: Collection[str] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    what: str = "",
    identity: bool | str = True,
    later: bool = False,
    commas: bool = False,
    settings: bool = False,
    by_data: Mapping[str, Any] | None = None,
    formerly: Collection[str] = (),
    old_values: Mapping[str, str] | None = None,
    marks: Collection[str] = (),
    **argument: Any,
) -> Any:
    """A dataclass field that declares an option; see `Declaration`.

    `default` may be a list (each object gets a copy) or `dataclasses.MISSING` (the option must be given).
    `argument` goes to `argparse.ArgumentParser.add_argument` (nargs, const).
    """
    declared = Declaration(
        group=group,
        choices=tuple(choices),
        at_least=at_least,
        above=above,
        at_most=at_most,
        below=below,
        what=what,
        identity=identity,
        later=later,
        commas=commas,
        settings=settings,
        by_data=by_data or {},
        formerly=tuple(formerly),
        old_values=old_values or {},
        marks=frozenset(marks),
    )
    metadata = {"help": help, **argument, DECLARED: declared}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def option_as_in(default: Any, record: type, name: str, help: str | None = None, **changes: Any) -> Any:
    """A field that declares an option of another record again: its type of value is the same, its default another.

    Heading, choices, range, words, identity, earlier names and the arguments of argparse are those of `record`, except
    for `changes`; the help too where none is given. What a record does with an option, its `by_data` and `marks`, is
    its own.
    """
    item = next(item for item in fields(record) if item.name == name)
    declared, own = declaration_of(item), ("by_data", "marks")
    facts = {fact.name: getattr(declared, fact.name) for fact in fields(Declaration) if fact.name not in own}
    argument = {key: value for key, value in item.metadata.items() if key not in ("help", DECLARED)}
    return option(default, help or item.metadata["help"], **{**facts, **argument, **changes})


class Options:
    """The base of every command's options, a dataclass of `option` fields.

    Raises ValueError with all that is wrong: values outside their choices and ranges, and contradictions.
    """

    def __post_init__(self) -> None:
        if problems := [*self.contradictions(), *wrong_values(self), *no_folder(self)]:
            raise ValueError("; ".join(problems))

    def contradictions(self) -> list[str]:
        """Conflicts between several options."""
        return []


def declaration_of(item: Field[Any]) -> Declaration:
    """The declaration of a field; an empty one for a plain field."""
    return item.metadata.get(DECLARED, Declaration())


def declarations(options: Any) -> dict[str, Declaration]:
    """The declarations of a dataclass of options, by option name."""
    return {item.name: declaration_of(item) for item in fields(options)}


def wrong_values(options: Any) -> list[str]:
    """Every value outside its choices or its range; None is a default yet to be filled in."""
    return [
        complaint
        for name, declared in declarations(options).items()
        for complaint in declared.complaints(name, getattr(options, name))
    ]


def no_folder(options: Any) -> list[str]:
    """An address as --output_dir of a command without --upload; it may hold credentials, and is not shown."""
    names = declarations(options)
    scheme, separator, _ = str(getattr(options, "output_dir", "")).partition("://")
    if "output_dir" not in names or "upload" in names or not separator:
        return []
    return [f"--output_dir {scheme}://...: this command does not upload: name a local folder"]


def identity_values(options: Any) -> dict[str, Any]:
    """The options that decide what is computed: two runs in which they are equal are the same run."""
    values, later = asdict(options), later_defaults(options)
    return {
        name if declared.identity is True else str(declared.identity): values[name]
        for name, declared in declarations(options).items()
        if declared.identity and not (name in later and values[name] == later[name])
    }


def later_defaults(options: Any) -> dict[str, Any]:
    """What an identity means in which these options are missing; of a dataclass of options or its class."""
    return {item.name: default_of(item) for item in fields(options) if declaration_of(item).later}


def names_marked(options: Any, mark: str) -> tuple[str, ...]:
    """The names of the options that have a mark, in order of declaration."""
    return tuple(name for name, declared in declarations(options).items() if mark in declared.marks)


def by_data(options: Any, data: str) -> dict[str, Any]:
    """The defaults for this kind of data of the options that were not given."""
    declared = declarations(options).items()
    return {name: declaration.by_data[data] for name, declaration in declared if data in declaration.by_data}


def not_given(options: Any) -> set[str]:
    """The options that still have their default."""
    return {item.name for item in fields(options) if getattr(options, item.name) == default_of(item)}


def default_of(item: Field[Any]) -> Any:
    """A field's default; a default factory is called."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def numbers(text: str | None) -> tuple[float, ...]:
    """`1e-4,3e-4` -> numbers, each once; None or "" -> (). ValueError for words, infinities and NaN."""
    try:
        values = tuple(dict.fromkeys(float(part) for part in (text or "").split(",") if part.strip()))
    except ValueError as error:
        raise ValueError(f"{text!r} is not a list of numbers: separate them with commas, such as 1e-4,3e-4") from error
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{text!r}: use finite numbers separated by commas, such as 1e-4,3e-4")
    return values
