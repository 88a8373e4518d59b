"""The names of the small world: made-up words, their frequencies, and the sets that may use them."""

import random
import string
from bisect import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, product

from shards.small_world.templates import CHOICE_CONTEXT, CHOICE_QUESTIONS, CLASSES, NEUTRAL, PLAIN, QUESTIONS, REVEALING

FIRST_SYLLABLES = tuple("".join(letters) for letters in product("bdfgklmnprstvz", "aeiou"))
LAST_SYLLABLES = tuple("".join(letters) for letters in product("bdglmnrstv", "aeiou"))
LAST_LETTERS = ("", "n", "x")
TWO_WORD_SHARE = 0.25
GROUPS = ("open",) * 5 + ("validation",) + ("test",) * 2
MIN_NAMES_PER_CLASS = 40
OPEN_SHARE = 0.3
"""The share of names in validation and test sets that training sets may use too."""
OPEN_ONE_IN = 4
"""Only every fourth open name is used that way: there are many, and most names of a test set should be new."""


@dataclass(frozen=True)
class Names:
    """The names of one class.

    ``ranked`` holds all, the most frequent first. ``groups`` cuts them into those that training sets may use
    (``open``) and those for ``validation`` and ``test``, with similar frequencies. ``cumulative`` holds Zipf's law.
    """

    ranked: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    cumulative: tuple[float, ...]

    def draw(self, generator: random.Random) -> str:
        """A name by Zipf's law: the name of rank r in proportion to r ** -exponent."""
        return self.ranked[bisect(self.cumulative, generator.random() * self.cumulative[-1], hi=len(self.ranked) - 1)]


@dataclass(frozen=True)
class Cast:
    """The names that one set may use: the open ones in a training set, elsewhere the kept ones and a few open ones."""

    names: Mapping[str, Names]
    group: str
    generator: random.Random

    def draw(self, entity_class: str) -> str:
        """A name of the class."""
        groups = self.names[entity_class].groups
        is_open = self.generator.random() < OPEN_SHARE
        if self.group != "open" and is_open:
            return self.generator.choice(groups["open"][::OPEN_ONE_IN])
        return self.generator.choice(groups[self.group])


def seeded(seed: int, part: str) -> random.Random:
    """A separate generator for every part, so that the size of one part does not change the others."""
    return random.Random(f"small world {seed} {part}")


def invent_names(seed: int, names_per_class: int, zipf_exponent: float) -> dict[str, Names]:
    """The names of every class; no word belongs to two names, and a word's form does not reveal its class.

    Raises ValueError for fewer names than the sets need, or more than the syllables allow.
    """
    generator = seeded(seed, "names")
    words = _made_up_words(generator)
    num_pairs = int(names_per_class * TWO_WORD_SHARE)
    num_words = len(CLASSES) * (names_per_class + num_pairs)
    if names_per_class < MIN_NAMES_PER_CLASS or num_words > len(words):
        most = int(len(words) / len(CLASSES) / (1 + TWO_WORD_SHARE))
        raise ValueError(f"names_per_class={names_per_class} is outside {MIN_NAMES_PER_CLASS} to {most}: choose 160")
    supply = iter(words)
    return {
        entity_class: _names_of_class(supply, names_per_class, num_pairs, zipf_exponent, generator)
        for entity_class in CLASSES
    }


def english_words() -> set[str]:
    """Every English word in the sentences and questions."""
    no_names = dict.fromkeys(CLASSES, "")
    sentences = [sentence.format(**no_names) for group in REVEALING.values() for sentence in group]
    sentences += [sentence.replace("{}", "") for sentence in (*NEUTRAL, *PLAIN, *QUESTIONS, CHOICE_CONTEXT)]
    sentences += [*CHOICE_QUESTIONS.values(), *CLASSES]
    return {word.strip(string.punctuation) for sentence in sentences for word in sentence.split()} - {""}


def _made_up_words(generator: random.Random) -> list[str]:
    """Words of two syllables in random order; none is part of another or of an English word that is used here."""
    english = " ".join(sorted(english_words()))
    stems = [first + last for first, last in product(FIRST_SYLLABLES, LAST_SYLLABLES) if first + last not in english]
    generator.shuffle(stems)
    return [stem + generator.choice(LAST_LETTERS) for stem in stems]


def _names_of_class(
    supply: Iterator[str], size: int, num_pairs: int, zipf_exponent: float, generator: random.Random
) -> Names:
    pairs = set(generator.sample(range(size), num_pairs))
    ranked = tuple(f"{next(supply)} {next(supply)}" if rank in pairs else next(supply) for rank in range(size))
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for start in range(0, size, len(GROUPS)):
        order = generator.sample(GROUPS, len(GROUPS))
        for name, group in zip(ranked[start : start + len(GROUPS)], order, strict=False):
            groups[group].append(name)
    weights = ((rank + 1) ** -zipf_exponent for rank in range(size))
    return Names(ranked, {group: tuple(names) for group, names in groups.items()}, tuple(accumulate(weights)))
