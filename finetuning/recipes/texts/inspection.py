"""Preflight checks of labelled texts before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from finetuning.examples.label_cells import doubtful_labels
from finetuning.examples.preflight import Preflight, note_label_balance, note_shared_texts, shared_groups
from finetuning.recipes.texts.labelled_text import LabelledText, content, is_blank
from finetuning.recipes.texts.recipe import TextRecipe

MUCH_CUT = 0.2


def inspect_texts(recipe: TextRecipe) -> Preflight:
    """Overlong and blank texts, label balance, copies within and between splits, the score of a constant answer."""
    preflight = Preflight()
    for split, encoded in recipe.encoded.items():
        total = len(encoded.features)
        preflight.note(f"{split}_examples", total)
        share = encoded.num_overlong / total if total else 0.0
        preflight.note(f"{split}_overlong_share", share)
        if share > MUCH_CUT:
            preflight.warnings.append(
                f"{share:.1%} of {split} is longer than --max_seq_length {recipe.settings.max_seq_length} and is cut "
                f"(--truncation {recipe.settings.truncation})"
            )
        blank = sum(is_blank(example) for example in recipe.examples[split].values())
        preflight.note(f"{split}_blank_texts", blank, f"{blank} of {total} texts of {split} are blank")
    texts = {split: [content(example) for example in examples.values()] for split, examples in recipe.examples.items()}
    note_shared_texts(preflight, texts)
    _note_contradictions(preflight, recipe.examples["train"])
    for split in (split for split in texts if split.startswith("test")):
        shared = shared_groups(texts.get("validation", []), texts[split])
        preflight.note(
            f"validation_{split}_shared_texts",
            shared,
            f"{shared} texts occur both in validation, which picks the best epoch, and in {split}: its score is "
            "optimistic",
        )
    if not recipe.is_regression:
        labels = {
            split: [example.label for example in examples.values() if example.label is not None]
            for split, examples in recipe.examples.items()
        }
        note_label_balance(preflight, labels)
        _note_doubtful_labels(preflight, recipe)
    for split, evaluation_set in recipe.evaluation_sets.items():
        majority = recipe.majority_score(evaluation_set.examples) if evaluation_set.labelled else None
        if majority is not None:
            preflight.note(f"{split}_majority_{recipe.metric}", majority)
    return preflight


def _note_doubtful_labels(preflight: Preflight, recipe: TextRecipe) -> None:
    counts = Counter(
        example.label for split in recipe.examples.values() for example in split.values() if example.label is not None
    )
    for label, reason in doubtful_labels(recipe.labels).items():
        preflight.warnings.append(f"{counts[label]} examples have the label {label!r}, a separate class here; {reason}")


def _note_contradictions(preflight: Preflight, examples: Mapping[str, LabelledText]) -> None:
    labels: dict[str, set[str | None]] = {}
    for example in examples.values():
        labels.setdefault(content(example), set()).add(example.label)
    count = sum(len(different) > 1 for different in labels.values())
    preflight.note("train_contradicting_texts", count, f"{count} texts of train occur with different labels")
