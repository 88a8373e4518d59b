"""The sentences of the small world, and the rule that keeps those of the task sets out of the corpus."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from string import Formatter
from zlib import crc32

from shards.small_world.names import Names
from shards.small_world.templates import CLASSES, NEUTRAL, PLAIN, REVEALING

RESERVED_ONE_IN = 8
MAX_DRAWS = 10_000
MIN_SENTENCES, MAX_SENTENCES = 3, 6
PLAIN_SHARE, NEUTRAL_SHARE = 0.02, 0.08


def is_reserved(sentence: str) -> bool:
    """Whether a sentence with names belongs to the task sets (one in eight does) and never to the corpus."""
    return crc32(sentence.encode()) % RESERVED_ONE_IN == 0


def first_reserved(draw: Callable[[], tuple[str, list[str]]]) -> tuple[str, list[str]]:
    """The first reserved sentence that ``draw`` gives, with its names; RuntimeError after 10,000 others."""
    for _ in range(MAX_DRAWS):
        sentence, names = draw()
        if is_reserved(sentence):
            return sentence, names
    raise RuntimeError(f"no reserved sentence in {MAX_DRAWS} draws: more names per class give more sentences")


@cache
def slots(template: str) -> tuple[str, ...]:
    """The classes of a template's slots, in order (an empty string where any class fits)."""
    return tuple(field for _, field, _, _ in Formatter().parse(template) if field is not None)


@cache
def _frame(template: str) -> str:
    """The template with every slot as ``%s``, which fills several times faster than ``str.format``."""
    return "".join(text + ("%s" if field is not None else "") for text, field, _, _ in Formatter().parse(template))


def fill(template: str, names: Sequence[str]) -> str:
    """A template with its slots filled by names, in order."""
    return _frame(template) % tuple(names)


def distinct(draw: Callable[[str], str], classes: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """A name for each of the classes, none twice and none of ``taken``."""
    names: list[str] = []
    for entity_class in classes:
        name = draw(entity_class)
        while name in names or name in taken:
            name = draw(entity_class)
        names.append(name)
    return names


def documents(names: Mapping[str, Names], num_documents: int, generator: random.Random) -> Iterator[str]:
    """The corpus: documents of 3 to 6 sentences; at the end further ones for names that have not yet occurred.

    Most sentences give away the classes of their names. Within a class, the frequency of names follows Zipf's law.
    """
    unseen = {(entity_class, name) for entity_class in CLASSES for name in names[entity_class].ranked}
    for _ in range(num_documents):
        num_sentences = generator.randint(MIN_SENTENCES, MAX_SENTENCES)
        yield " ".join(_corpus_sentence(names, generator, unseen) for _ in range(num_sentences))
    while unseen:
        late = sorted(unseen)[:MIN_SENTENCES]
        late += late[: MIN_SENTENCES - len(late)] * MIN_SENTENCES
        yield " ".join(_corpus_sentence(names, generator, unseen, forced) for forced in late[:MIN_SENTENCES])


def _corpus_sentence(
    names: Mapping[str, Names],
    generator: random.Random,
    unseen: set[tuple[str, str]],
    forced: tuple[str, str] | None = None,
) -> str:
    while True:
        template, classes = _template(generator, forced)
        drawn = distinct(lambda entity_class: names[entity_class].draw(generator), classes)
        if forced:
            drawn[classes.index(forced[0])] = forced[1]
        sentence = fill(template, drawn)
        if not drawn or not is_reserved(sentence):
            unseen.difference_update(zip(classes, drawn, strict=True))
            return sentence


def _template(generator: random.Random, forced: tuple[str, str] | None) -> tuple[str, Sequence[str]]:
    chance = generator.random()
    if not forced and chance < PLAIN_SHARE:
        return generator.choice(PLAIN), ()
    if not forced and chance < PLAIN_SHARE + NEUTRAL_SHARE:
        template = generator.choice(NEUTRAL)
        return template, generator.choices(CLASSES, k=len(slots(template)))
    template = generator.choice(REVEALING[forced[0] if forced else generator.choice(CLASSES)])
    return template, slots(template)
