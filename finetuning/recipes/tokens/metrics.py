"""Accuracy over words and, where the tags mark entities, their precision, recall and F1 as conlleval counts them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

ENTITY_TAG = re.compile(r"[BIES]-.+", re.DOTALL)
OTHER_ENTITY_TAG = re.compile(r"[BILUME]-.+", re.DOTALL)  # of BILOU and BMES
OUTSIDE = "O"
IOB1, IOB2, IOBES = "IOB1", "IOB2", "IOBES"

Tags = Sequence[str]


def scheme_of(labels: Iterable[str]) -> str | None:
    """IOB2 or IOBES by the tags of a set; None where the tags mark no entities in these schemes."""
    tags = {label for label in labels if label != OUTSIDE}
    if not tags or not all(ENTITY_TAG.fullmatch(tag) for tag in tags):
        return None
    return IOBES if {tag[0] for tag in tags} & {"E", "S"} else IOB2


def begins_inside(sentences: Iterable[Tags]) -> int:
    """The number of entities that begin with I-: in IOB1 all that do not follow one of their type, in IOB2 none."""
    count = 0
    for tags in sentences:
        before = OUTSIDE
        for tag in tags:
            count += tag.startswith("I-") and before[1:] != tag[1:]
            before = tag
    return count


def marks_entities_otherwise(labels: Iterable[str]) -> bool:
    """Whether tags look like those of BILOU or BMES, which are scored by accuracy alone."""
    tags = {label for label in labels if label != OUTSIDE}
    marks = {tag[0] for tag in tags}
    return bool(tags) and all(OTHER_ENTITY_TAG.fullmatch(tag) for tag in tags) and bool(marks & {"L", "U", "M"})


def entity_scores(gold: Sequence[Tags], predicted: Sequence[Tags]) -> dict[str, float]:
    """Precision, recall and F1 over the entities of all sentences (micro averages); 0 where there is none.

    They are seqeval's in its default mode, which reads tags as conlleval does: in IOB2, IOBES and IOB1 alike, and an
    entity may begin with I-.
    """
    scores = precision_recall_fscore_support(
        [list(tags) for tags in gold], [list(tags) for tags in predicted], average="micro", zero_division=0
    )
    return dict(zip(("precision", "recall", "f1"), (float(score) for score in scores[:3]), strict=True))


def entity_counts(gold: Tags, predicted: Tags) -> dict[str, int]:
    """Entities of one sentence that are correct (type and both ends), predicted, and in the reference."""
    true, guessed = set(get_entities(list(gold))), set(get_entities(list(predicted)))
    return {"true_positives": len(true & guessed), "predicted_entities": len(guessed), "gold_entities": len(true)}
