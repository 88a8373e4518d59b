"""Made-up questions, choices, tagged sentences and reviews, and a random encoder that knows the reviews' few words."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from finetuning.recipes.choices.choice_files import ChoiceQuestion
from finetuning.recipes.questions.squad import Answer, Question
from finetuning.recipes.tokens.sentences import TaggedSentence

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


GOOD = ("fine", "great", "lovely", "bright", "warm")
BAD = ("dull", "awful", "grim", "bleak", "cold")
PLAIN = ("the", "film", "was", "and", "a", "very", "day", "song", "with", "its")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_tiny_model(directory: Path, *, seed: int = 0) -> str:
    """Save config, random weights and tokenizer; returns the path that --model_name_or_path takes."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *GOOD, *BAD, *PLAIN))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(directory)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(directory)
    return str(directory)


def reviews(count: int, *, seed: int = 0, share_good: float = 0.5) -> list[dict[str, str]]:
    """Made-up reviews of 3 to 12 words with one telling word each: {"id", "text", "label"}."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        good = generator.random() < share_good
        words = [generator.choice(PLAIN) for _ in range(generator.randint(2, 11))]
        words.insert(generator.randint(0, len(words)), generator.choice(GOOD if good else BAD))
        rows.append({"id": f"r{seed}-{number}", "text": " ".join(words), "label": "good" if good else "bad"})
    return rows


def write_reviews(path: Path, rows: list[dict[str, str]]) -> str:
    """Write rows as JSON and return the path."""
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


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
