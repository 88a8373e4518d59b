"""The task sets of the small world: extractive question answering, multiple choice, acceptability, names in texts."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from shards.small_world.names import Cast
from shards.small_world.sentences import distinct, fill, first_reserved, slots
from shards.small_world.templates import CHOICE_CONTEXT, CHOICE_QUESTIONS, CLASSES, GAP, NEUTRAL, QUESTIONS, REVEALING

NUM_CHOICES = 4
MIN_CONTEXT_NAMES, MAX_CONTEXT_NAMES = 3, 4
LONG_CONTEXT_NAMES = 20
LONG_CONTEXT_SHARE = 0.01

COMPANY = {
    entity_class: [template for template in templates if len(slots(template)) > 1]
    for entity_class, templates in REVEALING.items()
}
"""The sentences with two names or more: enough of them for every set, right and wrong alike."""

Example = dict[str, Any]
MakeExample = Callable[[Cast, int], Example]


def examples(make: MakeExample, cast: Cast, size: int, prefix: str, taken: set[str]) -> list[Example]:
    """``size`` examples with ids ``prefix-000000`` and on, none with a context or text in ``taken``, which grows.

    ``make`` takes the cast and the example's number, whose parity balances the two kinds.
    """
    made: list[Example] = []
    while len(made) < size:
        example = make(cast, len(made))
        text = example.get("context") or example.get("text") or " ".join(example["tokens"])
        if text not in taken:
            taken.add(text)
            made.append({"id": f"{prefix}-{len(made):06d}", **example})
    return made


def span_question(cast: Cast, number: int) -> Example:
    """A question such as "which river is named?": the context names one river among names of other classes.

    A context has 3 or 4 names; about one in a hundred has 20 and is longer than 64 tokens. ``answer_start`` counts
    characters.
    """
    generator = cast.generator
    asked, *others = generator.sample(CLASSES, len(CLASSES))
    templates = _neutral_templates(cast)
    num_slots = sum(len(slots(template)) for template in templates)
    place = generator.randrange(num_slots)
    classes = [asked if slot == place else generator.choice(others) for slot in range(num_slots)]
    sentences: list[str] = []
    names: list[str] = []
    for template in templates:
        here = classes[len(names) : len(names) + len(slots(template))]
        sentence, drawn = first_reserved(partial(_filled, cast, template, here, names))
        sentences.append(sentence)
        names += drawn
    context = " ".join(sentences)
    question = generator.choice(QUESTIONS).format(asked)
    # No made-up word is part of another word, so the first place is the only one.
    return {
        "context": context,
        "question": question,
        "answer": names[place],
        "answer_start": context.index(names[place]),
    }


def choice_question(cast: Cast, number: int) -> Example:
    """A question with four names or (every second time) four sentences to choose from; one fits by its class."""
    generator = cast.generator
    classes = generator.sample(CLASSES, NUM_CHOICES)
    if number % 2 == 0:
        kind, (context, choices) = "name", _name_choices(cast, classes)
    else:
        kind, (context, choices) = "sentence", _sentence_choices(cast, classes)
    label = generator.randrange(NUM_CHOICES)
    choices[0], choices[label] = choices[label], choices[0]
    return {"context": context, "question": CHOICE_QUESTIONS[kind], "choices": choices, "label": label}


def acceptability(cast: Cast, number: int) -> Example:
    """A sentence whose names all fit their places (label 1), or one is of another class (label 0): half each."""
    generator = cast.generator
    label = number % 2

    def draw() -> tuple[str, list[str]]:
        template = generator.choice(COMPANY[generator.choice(CLASSES)])
        classes = list(slots(template))
        if not label:
            place = generator.randrange(len(classes))
            classes[place] = generator.choice([other for other in CLASSES if other != classes[place]])
        return _filled(cast, template, classes)

    return {"text": first_reserved(draw)[0], "label": label}


def named_words(cast: Cast, number: int) -> Example:
    """The words and signs of a text, tagged B-CLASS and I-CLASS where they are a name, else O.

    Every second text is a sentence that gives the classes of its names away; the others are sentences of 3 or 4 names
    that do not, about one in fifty of them with 20 names and longer than 64 tokens.
    """
    generator = cast.generator
    if number % 2:
        template = generator.choice(COMPANY[generator.choice(CLASSES)])
        parts = [(template, slots(template))]
    else:
        templates = _neutral_templates(cast, share_of_long=2 * LONG_CONTEXT_SHARE)
        parts = [(template, tuple(generator.choices(CLASSES, k=len(slots(template))))) for template in templates]
    tokens: list[str] = []
    tags: list[str] = []
    names: list[str] = []
    for template, classes in parts:
        sentence, drawn = first_reserved(partial(_filled, cast, template, classes, names))
        names += drawn
        words, marks = _tagged(sentence, dict(zip(drawn, classes, strict=True)))
        tokens += words
        tags += marks
    return {"tokens": tokens, "tags": tags}


def _tagged(sentence: str, names: Mapping[str, str]) -> tuple[list[str], list[str]]:
    # No made-up word is part of another word or belongs to two names, so a name is where its words stand.
    inside = {
        word: f"{'I' if place else 'B'}-{entity_class}"
        for name, entity_class in names.items()
        for place, word in enumerate(name.split())
    }
    words = re.findall(r"\w+|[^\w\s]", sentence)
    return words, [inside.get(word, "O") for word in words]


def _neutral_templates(cast: Cast, share_of_long: float = LONG_CONTEXT_SHARE) -> list[str]:
    long = cast.generator.random() < share_of_long
    wanted = LONG_CONTEXT_NAMES if long else cast.generator.randint(MIN_CONTEXT_NAMES, MAX_CONTEXT_NAMES)
    templates: list[str] = []
    while wanted:  # whole sentences: never too many names, and never just one left over, as no sentence has one name
        left = {template: wanted - len(slots(template)) for template in NEUTRAL}
        template = cast.generator.choice(
            [candidate for candidate in NEUTRAL if left[candidate] == 0 or left[candidate] > 1]
        )
        templates.append(template)
        wanted = left[template]
    return templates


def _filled(cast: Cast, template: str, classes: Sequence[str], taken: Sequence[str] = ()) -> tuple[str, list[str]]:
    names = distinct(cast.draw, classes, taken)
    return fill(template, names), names


def _name_choices(cast: Cast, classes: Sequence[str]) -> tuple[str, list[str]]:
    """A sentence with a gap, and a name of each class, the first of which fits."""
    template = cast.generator.choice(COMPANY[classes[0]])
    _, names = first_reserved(partial(_filled, cast, template, slots(template)))
    gap = slots(template).index(classes[0])
    choices = [names[gap], *distinct(cast.draw, classes[1:], names)]
    return fill(template, [*names[:gap], GAP, *names[gap + 1 :]]), choices


def _sentence_choices(cast: Cast, classes: Sequence[str]) -> tuple[str, list[str]]:
    """A name of the first class (and a bystander), and a sentence with the name in a place of each class."""
    name, aside = distinct(cast.draw, [classes[0], cast.generator.choice(CLASSES)])

    def draw(entity_class: str) -> tuple[str, list[str]]:
        template = cast.generator.choice(COMPANY[entity_class])
        names = distinct(cast.draw, slots(template), [name])
        names[slots(template).index(entity_class)] = name
        return fill(template, names), names

    return CHOICE_CONTEXT.format(name, aside), [first_reserved(partial(draw, each))[0] for each in classes]
