"""What the launchable recipes share: from options to a finished run with its files and its closing table."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from finetuning.batches import batch_shape
from finetuning.encoder import default_model, load_encoder, load_tokenizer
from finetuning.preflight import Preflight
from finetuning.recipe import FinetuningOptions, Recipe
from finetuning.result import Result, write_result
from finetuning.run_log import closing_table
from finetuning.run_state import STATE_NAME
from finetuning.saved_model import load_head, save_model
from finetuning.training import finetune, open_engine
from pretraining.agreement import barrier, broadcast_json
from pretraining.engines.engine import full_weights
from pretraining.environment import Ranks, choose_device, close_process_group, init_process_group, read_ranks
from pretraining.ownership import Ownership
from shards.small_world import write_small_world

SMALL_WORLD = Path("runs/small_world")
SMALL_WORLD_OPTIONS = {"learning_rate": 1e-3, "num_train_epochs": 8.0, "global_batch_rows": 16, "max_seq_length": 64}

Options = TypeVar("Options", bound=FinetuningOptions)


@dataclass(frozen=True)
class Prepared:
    """What a recipe's own code makes of the options: the recipe, and what the preflight found."""

    recipe: Recipe
    preflight: Preflight


Prepare = Callable[[PreTrainedTokenizerBase, PretrainedConfig], Prepared]


def guarded(run: Callable[[], int]) -> int:
    """The exit status of a command: a ValueError is the user's to mend, and becomes a message and status 2."""
    try:
        return run()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except torch.OutOfMemoryError as error:
        print(
            f"error: out of memory ({str(error).splitlines()[0]}): lower --per_device_train_batch_size (the global "
            "batch and the result stay the same), --per_device_eval_batch_size or --max_seq_length",
            file=sys.stderr,
            flush=True,
        )
        return 2


def open_world(options: FinetuningOptions) -> Ranks:
    """Open the process group, if there are several ranks or DeepSpeed wants one."""
    ranks = read_ranks()
    init_process_group(ranks, choose_device(ranks), always=options.deepspeed is not None)
    return ranks


def small_world_files(task: str, ranks: Ranks) -> dict[str, str]:
    """The embedded default's files of a task by split; made by the main rank when they are not there."""
    if ranks.is_main:
        write_small_world(SMALL_WORLD)
    barrier()
    return {split: str(SMALL_WORLD / task / f"{split}.json") for split in ("train", "validation", "test")}


def given_files(options: FinetuningOptions, task: str, ranks: Ranks) -> dict[str, str]:
    """The files by split: those named, or the small world's when none is (nor a data set)."""
    named = {"train": options.train_file, "validation": options.validation_file, "test": options.test_file}
    files = {split: file for split, file in named.items() if file}
    return files or small_world_files(task, ranks)


def for_small_world(options: Options) -> Options:
    """The options as they are, or, for the embedded default, with what its small models need where nothing was given.

    Names of two words in short sentences: rows are short, and a width of 128 wants a high learning rate.
    """
    if options.train_file or options.validation_file or options.test_file or options.dataset_name:
        return options
    defaults = {one.name: one.default for one in fields(options)}
    left: dict[str, Any] = {
        name: value for name, value in SMALL_WORLD_OPTIONS.items() if getattr(options, name) == defaults[name]
    }
    if options.per_device_train_batch_size is not None or options.gradient_accumulation_steps is not None:
        left.pop("global_batch_rows", None)  # these say what the batch is
    return replace(options, **left)


def model_name(options: FinetuningOptions) -> str:
    """The model of the options, or the default run's newest checkpoint."""
    return options.model_name_or_path or default_model()


def run_recipe(
    options: FinetuningOptions, name: str, prepare: Prepare, *, extra: Mapping[str, Any] | None = None
) -> Result:
    """Load, prepare, train, evaluate, write. Every rank calls it; the main rank writes and prints."""
    ranks = open_world(options)
    directory = Path(options.output_dir or f"runs/finetuning/{name}")
    owner = Ownership(directory)
    if ranks.is_main:
        owner.take()
    source = broadcast_json(model_name(options))
    quieten_transformers()
    tokenizer = load_tokenizer(source)
    encoder = load_encoder(source, from_scratch=options.from_scratch, seed=options.seed, dropout=options.dropout)
    prepared = prepare(tokenizer, encoder.config)
    say = print if ranks.is_main else (lambda *words: None)
    weights = "random weights in the shape of" if options.from_scratch else "weights of"
    say(f"{name}: {len(prepared.recipe.train_features)} training rows, {weights} {source}")
    for line in prepared.preflight.lines():
        say(line)
    torch.manual_seed(options.seed)
    model = prepared.recipe.build_model(encoder)
    if options.num_train_epochs == 0 and not load_head(model, source, prepared.recipe.name):
        say(f"warning: {source} has no head of this recipe: the scores are those of a random one")
    engine = open_engine(model, options, batch_shape(options, ranks.world_size))
    result = finetune(prepared.recipe, model, options, engine=engine, directory=directory)
    if options.save_model and result.updates:
        weights_by_name = full_weights(engine)
        if ranks.is_main:
            save_model(
                weights_by_name, model, directory / "best", tokenizer=tokenizer, recipe_name=prepared.recipe.name
            )
    if ranks.is_main:
        _write(prepared, result, directory, {**(extra or {}), "model": source, "from_scratch": options.from_scratch})
        shutil.rmtree(directory / STATE_NAME, ignore_errors=True)  # finished: nothing to resume
    barrier()
    owner.release()
    return result


def _write(prepared: Prepared, result: Result, directory: Path, extra: Mapping[str, Any]) -> None:
    write_result(prepared.recipe, result, directory, {**prepared.preflight.figures, **extra})
    print(closing_table(f"{prepared.recipe.name} in {directory}", {**result.as_json(), **extra}))
    if result.status != "done":
        print(f"FAILED ({result.status}): {result.reason}")
    sets = prepared.recipe.evaluation_sets
    scored = [name for name in result.predictions if name != "validation" and sets[name].labelled]
    if result.selection_gain and not scored:
        print(
            f"note: the best epoch was picked on the scored set itself: {result.selection_gain:+.4g} over the last "
            "epoch is the optimism of that; score a test set for a figure without it"
        )


def quieten_transformers() -> None:
    """No report of the pretraining head's weights, which no recipe uses, and no bar for reading one file."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def finish_world() -> None:
    """Leave the process group together."""
    close_process_group()
