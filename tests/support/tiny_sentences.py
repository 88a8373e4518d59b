"""Made-up sentences with tags that follow from the words, as objects and as files."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tiny_examples import COLOURS, FILLERS, THINGS

from finetuning.tokens.sentences import TaggedSentence


def tiny_sentences(
    number: int, *, seed: int = 0, prefix: str = "s", entities: bool = False, long: bool = True
) -> list[TaggedSentence]:
    """Colours and things among fillers; every fourth sentence is longer than a row of 32 tokens if `long`.

    Their tags are COLOUR, THING and FILLER or, with `entities`, B-thing on a colour and I-thing on the thing after it.
    """
    generator = random.Random(seed)
    found = []
    for i in range(number):
        words: list[str] = []
        tags: list[str] = []
        for _ in range(generator.randrange(12, 18) if long and i % 4 == 3 else 2):
            words += [generator.choice(FILLERS), generator.choice(COLOURS), generator.choice(THINGS)]
            tags += ["O", "B-thing", "I-thing"] if entities else ["FILLER", "COLOUR", "THING"]
        found.append(TaggedSentence(f"{prefix}{i}", tuple(words), tuple(tags), f"id d{prefix}{i // 5}"))
    return found


def conllu_text(sentences: list[TaggedSentence], *, tagged: bool = True) -> str:
    """The sentences as CoNLL-U, their tags as upos, in documents."""
    lines, document = [], None
    for one in sentences:
        if one.document != document:
            document = one.document
            lines.append(f"# newdoc id = {str(document).removeprefix('id ')}")
        lines.append(f"# sent_id = {one.id}")
        for place, (word, tag) in enumerate(zip(one.words, one.tags, strict=True), start=1):
            lines.append("\t".join([str(place), word, "_", tag if tagged and tag else "_", *"______"]))
        lines.append("")
    return "\n".join(lines)


def write_conllu(path: Path, sentences: list[TaggedSentence], *, tagged: bool = True) -> str:
    """Write CoNLL-U and return the path."""
    path.write_text(conllu_text(sentences, tagged=tagged), encoding="utf-8")
    return str(path)


def write_rows(path: Path, sentences: list[TaggedSentence]) -> str:
    """Write JSON lines with tokens and tags and return the path."""
    rows = [{"id": one.id, "tokens": list(one.words), "tags": list(one.tags)} for one in sentences]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
