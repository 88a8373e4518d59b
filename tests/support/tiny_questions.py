"""Made-up questions and choices for tests of the recipes."""

from __future__ import annotations

import random

from finetuning.choices.choice_files import ChoiceQuestion
from finetuning.questions.squad import Answer, Question

COLOURS = ("red", "blue", "green", "grey")
THINGS = tuple(f"{first}{second}" for first in ("ba", "ki", "mo", "tu") for second in ("lan", "rek", "sop"))
FILLERS = ("old", "known", "here", "there", "now", "and", "it", "is")
WORDS = [*COLOURS, *THINGS, *FILLERS, *["what", "colour", "the", "has"], ".", "?"]


def tiny_questions(number: int, *, seed: int = 0, prefix: str = "q", long: bool = True) -> list[Question]:
    """Questions on the colour of a thing; every other context is longer than a small window if `long`."""
    rng = random.Random(seed)
    found = []
    for i in range(number):
        thing, colour = rng.choice(THINGS), rng.choice(COLOURS)
        before = " ".join(rng.choices(FILLERS, k=rng.randrange(20, 40) if long and i % 2 else 2))
        context = f"{before} the {thing} is {colour} {' '.join(rng.choices(FILLERS, k=3))}."
        start = context.index(f" {colour} ") + 1
        found.append(Question(f"{prefix}{i}", f"what colour is the {thing}?", context, (Answer(colour, start),)))
    return found


def tiny_choices(number: int, *, seed: int = 0, prefix: str = "c") -> list[ChoiceQuestion]:
    """Two to four choices, one of which names the thing of the question."""
    rng = random.Random(seed)
    found = []
    for i in range(number):
        things = rng.sample(THINGS, rng.randrange(2, 5))
        label = rng.randrange(len(things))
        seconds = tuple(f"the {thing} is {rng.choice(FILLERS)}" for thing in things)
        found.append(
            ChoiceQuestion(f"{prefix}{i}", (f"{things[label]} ?",) * len(things), seconds, label, tuple(things))
        )
    return found
