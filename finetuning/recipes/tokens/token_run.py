"""A run of token classification: its sentences, and every seed trained and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from finetuning.examples.dataset_records import read_dataset, subset
from finetuning.examples.pair_template import row_limit
from finetuning.examples.preflight import Preflight, note_label_balance, note_row_limit, note_shared_texts
from finetuning.examples.unknown_share import note_unknown_share
from finetuning.examples.unlabelled import drop_unlabelled, note_unlabelled
from finetuning.loop.schedule import makes_updates
from finetuning.loop.stopping import Asked
from finetuning.model.heads import TAGS
from finetuning.recipes.options.token_classification import TokenOptions
from finetuning.recipes.questions.windows import Windows
from finetuning.recipes.texts.text_run import saved_labels
from finetuning.recipes.tokens.metrics import begins_inside, marks_entities_otherwise
from finetuning.recipes.tokens.recipe import TokenRecipe
from finetuning.recipes.tokens.rows import for_words
from finetuning.recipes.tokens.sentences import Splits, TaggedSentence, dataset_splits, has_tags, tag_names
from finetuning.recipes.tokens.tagged_files import read_tagged
from finetuning.run.command import Prepared, finish_world, given_files, open_world, output_directory, run_recipe
from finetuning.run.seed_runs import run_seeds
from finetuning.run.starting_point import StartingPoint, starting_point
from runtime.files.schemas import listed, shown


def run(options: TokenOptions, asked: Asked, start: StartingPoint | None = None) -> int:
    """Run the command with parsed options, from the model that they name, or from `start` if it is already open."""
    ranks = open_world(options)
    files = {} if options.dataset_name else given_files(options, TokenRecipe.name, ranks)
    opened = start or starting_point(options)
    rows = cache(lambda: prepare(options, files, opened))
    name = TokenRecipe.name
    run_seeds(
        options,
        output_directory(options, name),
        name,
        lambda seed_options: run_recipe(seed_options, rows, ranks, asked=asked).results,
        ranks,
    )
    finish_world()
    return 0


def score_names() -> list[str]:
    """Accuracy, and of entities precision, recall and F1."""
    return ["accuracy", "precision", "recall", "f1"]


def prepare(options: TokenOptions, files: Mapping[str, str], start: StartingPoint) -> Prepared:
    """Read, check and encode the sentences."""
    preflight = Preflight()
    read = read_splits(options, files)
    labelled = drop_unlabelled(read)
    note_unlabelled(preflight, read, labelled)
    limits = {"train": options.max_train_samples}
    splits = {
        name: subset(sentences, limits.get(name, options.max_eval_samples), lambda sentence: sentence.id)
        for name, sentences in labelled.items()
    }
    unlabelled = [name for name, sentences in splits.items() if not has_tags(sentences, name)]
    labels = labels_of(options, splits, start)
    tokenizer = for_words(start.tokenizer)
    windows = Windows(row_limit(options.max_seq_length, start.config), options.doc_stride)
    recipe = TokenRecipe(splits, tokenizer, windows, labels=labels, unlabelled=unlabelled)
    note_sentences(preflight, recipe, splits, unlabelled)
    note_unknown_share(
        preflight, tokenizer, {name: [sentence.text for sentence in split] for name, split in splits.items()}
    )
    note_row_limit(preflight, options.max_seq_length, windows.max_seq_length)
    if options.doc_stride > windows.max_seq_length // 2:
        preflight.notes.append(
            f"--doc_stride {options.doc_stride} is over half a row of {windows.max_seq_length} tokens: windows overlap "
            "by half"
        )
    preflight.refuse_if(strict=options.strict)
    return Prepared(replace(start, tokenizer=tokenizer), recipe, preflight)


def read_splits(options: TokenOptions, files: Mapping[str, str]) -> Splits:
    """Sentences by split, from files or a `datasets` data set."""
    bad = options.on_bad_text
    if not options.dataset_name:
        return {name: read_tagged(file, tag_column=options.tag_column, on_bad_text=bad) for name, file in files.items()}
    rows = read_dataset(options.dataset_name, options.dataset_config_name)
    return dataset_splits(rows, f"--dataset_name {options.dataset_name}", options.tag_column)


def labels_of(options: TokenOptions, splits: Mapping[str, Sequence[TaggedSentence]], start: StartingPoint) -> list[str]:
    """The tags of the head where it is only evaluated, else those of the training set, the most frequent first.

    Raises ValueError without either, for a single tag, and for a set none of whose tags the head has.
    """
    head = start.head or {}
    if makes_updates(options) or options.from_scratch or head.get("task") != TAGS:
        if "train" not in splits:
            remedy = "use a data set with one" if options.dataset_name else "name one with --train_file"
            raise ValueError(f"no training set among {', '.join(splits)}: {remedy}")
        labels = tag_names(splits["train"])
        if len(labels) < 2:
            only = f"only the tag {shown(labels[0])}" if labels else "no tag"
            raise ValueError(f"train has {only}: two or more are needed; check --tag_column")
        check_known_tags(labels, splits, "the training set has", "check --tag_column and the files")
        return labels
    labels = saved_labels(head)
    remedy = "check --tag_column, or train (--num_train_epochs above 0)"
    check_known_tags(labels, splits, f"{start.name} was made for", remedy)
    return labels


def check_known_tags(
    labels: Sequence[str], splits: Mapping[str, Sequence[TaggedSentence]], origin: str, remedy: str
) -> None:
    """ValueError for a tagged set none of whose tags is among `labels`: it has another kind of tags."""
    for name, sentences in splits.items():
        tags = tag_names(sentences)
        if tags and not set(tags) & set(labels):
            raise ValueError(
                f"{origin} the tags {listed(labels)}, {name} has {listed(tags)}, and none of them is the same: {remedy}"
            )


def note_sentences(
    preflight: Preflight,
    recipe: TokenRecipe,
    splits: Mapping[str, Sequence[TaggedSentence]],
    unlabelled: Sequence[str],
) -> None:
    """Sizes, long sentences, words without tokens or tags, tags that cannot be predicted, copies, and the scheme."""
    for name, counts in recipe.counts.items():
        preflight.note(f"{name}_examples", counts.sentences)
        preflight.note(f"{name}_words", counts.words)
        preflight.note(f"{name}_rows", counts.rows)
        preflight.note(f"{name}_overlong_share", counts.long_sentences / max(1, counts.sentences))
        preflight.note(
            f"{name}_without_words", counts.without_words, f"{counts.without_words} sentences of {name} have no words"
        )
        preflight.note(
            f"{name}_words_without_tokens",
            counts.without_tokens,
            f"{counts.without_tokens} words of {name} have no token: they get the tag "
            f"{recipe.labels[0]!r} and are scored with it",
        )
        preflight.note(
            f"{name}_untagged_words",
            counts.untagged_words,
            f"{counts.untagged_words} words of {name} have no tag, in sentences that have others: they are neither "
            "trained nor scored",
        )
        preflight.note(
            f"{name}_unseen_tags",
            counts.unseen_tags,
            f"{counts.unseen_tags} words of {name} have a tag that is not among those learnt, such as "
            f"{_first_unseen(splits[name], recipe)!r}: they count as wrong",
        )
        preflight.note(f"{name}_dropped", counts.dropped)
    note_shared_texts(preflight, {name: [sentence.text for sentence in split] for name, split in splits.items()})
    tags = {
        name: [tag for sentence in split for tag in sentence.tags if tag is not None] for name, split in splits.items()
    }
    note_label_balance(preflight, {name: split for name, split in tags.items() if name not in unlabelled})
    if recipe.scheme is not None:
        gold = ([tag or "O" for tag in sentence.tags] for split in splits.values() for sentence in split)
        number = begins_inside(gold)
        preflight.note("entities_beginning_inside", number)
        if number:
            preflight.notes.append(
                f"{number} entities begin with I-, as in IOB1: they are read as conlleval reads them"
            )
    elif marks_entities_otherwise(recipe.labels):
        preflight.notes.append(
            "the tags look like BILOU or BMES: only accuracy is given; rewrite them as IOB2 or IOBES"
        )


def _first_unseen(sentences: Sequence[TaggedSentence], recipe: TokenRecipe) -> str | None:
    return next(
        (tag for sentence in sentences for tag in sentence.tags if tag is not None and tag not in recipe.labels), None
    )
