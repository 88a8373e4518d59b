"""The shared part of the recipes' commands: from options to a finished run with its files and closing table."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from finetuning.examples.batches import batch_shape, row_length
from finetuning.examples.predictions import write_finite_json
from finetuning.examples.preflight import Preflight
from finetuning.examples.recipe import NAMES_DATA, FinetuningOptions, Recipe, RecipeOptions
from finetuning.examples.recipe import SMALL_WORLD as SMALL_WORLD_DATA
from finetuning.loop.result import Result, write_predictions
from finetuning.loop.run_log import closing_table
from finetuning.loop.run_state import STATE_NAME, earlier_precision, run_identity
from finetuning.loop.schedule import makes_updates, require_training_rows
from finetuning.loop.stopping import Asked, Stopping, never, noting_signals
from finetuning.loop.training import deepspeed_content, finetune, open_engine, precision_of
from finetuning.model.checkpoint_files import attention_of
from finetuning.model.heads import OwnHead, TaskModel, load_headed
from finetuning.run.figures import draw_curves
from finetuning.run.finished import RESULTS_NAME, finished_results
from finetuning.run.memory import expected_memory
from finetuning.run.model_card import finetuning_card
from finetuning.run.option_checks import check_options
from finetuning.run.pushing import check_push, push_after_run
from finetuning.run.saved_model import live_proof, save_model
from finetuning.run.starting_point import StartingPoint
from pretraining.engines.engine import Engine, full_weights
from pretraining.engines.precision import Precision
from runtime.files.lock import Ownership
from runtime.options.declaration import by_data, names_marked, not_given
from runtime.options.exit_status import DONE, run_command
from runtime.plurals import counted
from runtime.processes.collectives import barrier, fail_together, on_main
from runtime.processes.interruption import forget_interruption, stopping_at_once
from runtime.processes.ranks import Ranks, choose_device, close_process_group, init_process_group, read_ranks
from shards.small_world.world import write_small_world

SMALL_WORLD = Path("runs/small_world")


@dataclass(frozen=True)
class Prepared:
    """The recipe that was built from the options, the preflight's outcome, and the starting checkpoint."""

    start: StartingPoint
    recipe: Recipe
    preflight: Preflight


Prepare = Callable[[], Prepared]


@dataclass(frozen=True)
class RecipeOutcome:
    """A run's all_results.json, and its whole result unless it was finished before."""

    results: dict[str, Any]
    result: Result | None


def run_until_asked(run: Callable[[Asked], object], directory: Path, pushed: FinetuningOptions | None = None) -> None:
    """Run what writes to `directory` and saves when asked to stop; its models are then pushed, if `pushed` says so."""
    forget_interruption(directory)
    pushes = getattr(pushed, "push_to_hub", False) and read_ranks().is_main
    if pushes:
        check_push(pushed)
    with noting_signals() as asked:
        run(asked)
    if pushes:
        with stopping_at_once():
            push_after_run(pushed, directory)


def status_of(work: Callable[[], object], directory: Path) -> int:
    """The exit status of a command that writes to `directory`: 0 once `work` returns, else that of what it raises."""

    def done() -> int:
        work()
        return DONE

    remedy = (
        "lower --per_device_train_batch_size (the global batch and the result stay the same), "
        "--per_device_eval_batch_size or --max_seq_length"
    )
    return run_command(done, memory_remedy=remedy, output_dir=directory)


def open_world(options: FinetuningOptions) -> Ranks:
    """Check the options, then open the process group, if there are several ranks or DeepSpeed wants one."""
    ranks = read_ranks()
    deepspeed_content.cache_clear()  # an earlier command of this process may have read the file
    check_options(options, ranks)
    init_process_group(ranks, choose_device(ranks), always=options.deepspeed is not None)
    return ranks


def small_world_files(task: str, ranks: Ranks) -> dict[str, str]:
    """The embedded default's files of a task by split; made by the main rank when they are missing."""
    if ranks.is_main:
        write_small_world(SMALL_WORLD)
    barrier()
    return {split: str(SMALL_WORLD / task / f"{split}.json") for split in ("train", "validation", "test")}


def given_files(options: FinetuningOptions, task: str, ranks: Ranks) -> dict[str, str]:
    """The files by split: those named, or the small world's when none is (nor a data set)."""
    named = {"train": options.train_file, "validation": options.validation_file, "test": options.test_file}
    files = {split: file for split, file in named.items() if file}
    return files or small_world_files(task, ranks)


def for_small_world(options: RecipeOptions) -> RecipeOptions:
    """The options; on the embedded small world, unset ones get the defaults that its small models need.

    Its rows are short, and a model of width 128 needs a high learning rate.
    """
    if any(getattr(options, name) for name in names_marked(options, NAMES_DATA)):
        return options
    defaults = by_data(options, SMALL_WORLD_DATA)
    left: dict[str, Any] = {name: defaults[name] for name in defaults.keys() & not_given(options)}
    if options.per_device_train_batch_size is not None or options.gradient_accumulation_steps is not None:
        left.pop("global_batch_rows", None)  # these set the batch
    return replace(options, **left)


def output_directory(options: FinetuningOptions, name: str) -> Path:
    """Where a recipe's files go: --output_dir, or the default of its name."""
    return Path(options.output_dir or f"runs/finetuning/{name}")


def run_recipe(
    options: FinetuningOptions,
    prepare: Prepare,
    ranks: Ranks,
    *,
    asked: Asked = never,
    finish: Callable[[Result], None] | None = None,
) -> RecipeOutcome:
    """Prepare, train, evaluate, write to --output_dir; a run that was finished before is read. Every rank calls it.

    The main rank writes and prints; it calls `finish` before all_results.json, whose presence marks a finished
    run. `prepare` is called once the directory is this run's. Raises Interrupted, all saved, once `asked` gives a
    reason.
    """
    directory = Path(str(options.output_dir))
    owner = Ownership(directory)
    on_main(owner.take, ranks, "taking the output directory")
    try:
        return _run_owned(options, directory, prepare(), ranks, asked, finish)
    finally:
        owner.release()


def _run_owned(
    options: FinetuningOptions,
    directory: Path,
    prepared: Prepared,
    ranks: Ranks,
    asked: Asked,
    finish: Callable[[Result], None] | None,
) -> RecipeOutcome:
    start = prepared.start
    options = replace(options, model_name_or_path=start.name)
    recipe, shape = prepared.recipe, batch_shape(options, ranks.world_size)
    num_dropped = int(prepared.preflight.figures.get("preflight_train_dropped", 0))
    require_training_rows(options, len(recipe.train_features), num_dropped=num_dropped)
    identity = run_identity(recipe, options, shape.global_rows, start.digest)
    again = options.resume_from_checkpoint == "false"
    before = on_main(lambda: finished_results(directory, *identity, again=again), ranks, "looking at its results")
    if before is not None:
        if ranks.is_main:
            shutil.rmtree(directory / STATE_NAME, ignore_errors=True)
            print(closing_table(f"{recipe.name} in {directory}: finished before, not run again", before), flush=True)
        return RecipeOutcome(before, None)
    device = choose_device(ranks)
    resumes = options.resume_from_checkpoint == "auto"
    earlier = on_main(lambda: earlier_precision(directory, device) if resumes else None, ranks, "reading its precision")
    precision = precision_of(options, start.config, device, ranks, earlier=earlier)
    engine, model = _build(prepared, options, ranks, precision, device)
    Stopping(asked).check()
    result = finetune(recipe, model, options, engine=engine, directory=directory, asked=asked, identity=identity)
    if options.save_model and result.updates:
        _save_best(recipe, model, engine, options, result, start.tokenizer, directory / "best")
    kept = {**identity._asdict(), "metric": recipe.metric, "seed": options.seed}
    kept |= {"model": start.name, "from_scratch": options.from_scratch}
    results = {**result.as_json(), **prepared.preflight.figures, **kept}
    if ranks.is_main:
        write_predictions(recipe, result, directory)
        if result.updates:
            title = f"{recipe.name}: {recipe.metric}"
            draw_curves({recipe.name: directory}, directory / "curves.png", title=title, metric=recipe.metric)
        if finish is not None:
            finish(result)
        write_finite_json(directory / RESULTS_NAME, results)
        _tell(recipe, result, directory, {**result.as_json(), **kept})
        shutil.rmtree(directory / STATE_NAME, ignore_errors=True)  # finished: nothing to resume
    barrier()
    return RecipeOutcome(results, result)


def _build(
    prepared: Prepared, options: FinetuningOptions, ranks: Ranks, precision: Precision, device: torch.device
) -> tuple[Engine, nn.Module]:
    """Announce the run and build its model."""
    recipe, start, head = prepared.recipe, prepared.start, prepared.recipe.head
    say = print if ranks.is_main else (lambda *words: None)
    weights = "random weights in the shape of" if options.from_scratch else "weights of"
    trained = counted(len(recipe.train_features), "training row") if makes_updates(options) else "no training"
    say(f"{recipe.name}: {trained}, {weights} {start.name}")
    for line in prepared.preflight.lines():
        say(line)
    shape = batch_shape(options, ranks.world_size)
    features = [recipe.train_features, *(rows.features for rows in recipe.evaluation_sets.values())]
    longest = max((row_length(feature) for rows in features for feature in rows), default=0)
    attention = attention_of(start.config, bf16=precision.bf16, device_type=device.type, length=longest)
    say(f"engine: {device.type}, {precision}, attention {attention}")
    if makes_updates(options):
        memory = expected_memory(recipe, start.config, options, shape, ranks, bf16=precision.bf16, attention=attention)
        say(f"memory: {'unknown' if memory is None else memory.sentence()}")
    facts = start.head if not makes_updates(options) and not options.from_scratch else None
    keeps = facts is not None and facts["task"] == head.task
    if facts is not None and keeps:
        head = replace(head, pooling=facts["pooling"] or head.pooling, own=facts["own_head"])
    headed = load_headed(
        start.name,
        head,
        from_scratch=options.from_scratch,
        seed=options.seed,
        dropout=options.dropout,
        keep_head=keeps,
        config=start.config,
        attention=attention,
    )
    say(headed.sentence(options.seed))
    if not makes_updates(options) and headed.drawn:
        say(f"warning: {start.name} has no head of this recipe: the scores are those of a random one")
    torch.manual_seed(options.seed)
    model = recipe.build_model(headed.draw(options.seed))
    return open_engine(model, options, shape, precision=precision), model


def _save_best(
    recipe: Recipe,
    model: nn.Module,
    engine: Engine,
    options: FinetuningOptions,
    result: Result,
    tokenizer: Any,
    place: Path,
) -> None:
    """Write and verify the best epoch's model; every rank calls it, and all fail if the main rank does."""
    proof = live_proof(recipe, engine, bf16=engine.options.bf16)
    weights, error = full_weights(engine), None
    if engine.ranks.is_main and not proof.is_finite:
        print(f"warning: {place} was not written: the model's outputs are not finite", flush=True)
    elif engine.ranks.is_main and isinstance(model, TaskModel):
        shape = batch_shape(options, engine.ranks.world_size)
        card = finetuning_card(recipe, model, options, result, shape)
        try:
            save_model(
                weights, model, place, recipe=recipe, tokenizer=tokenizer, proof=proof, options=options, card=card
            )
        except (OSError, ValueError, RuntimeError) as caught:
            error = caught
        if isinstance(model.transformer, OwnHead):
            print(
                f"{place}: plain `transformers` has no class for this head; load it with `from finetuning import load`"
            )
    fail_together(error, f"saving {place}")


def _tell(recipe: Recipe, result: Result, directory: Path, results: Mapping[str, Any]) -> None:
    print(closing_table(f"{recipe.name} in {directory}", results))
    if result.status != "done":
        print(f"FAILED ({result.status}): {result.reason}")
    sets = recipe.evaluation_sets
    scored = [name for name in result.predictions if name != "validation" and sets[name].labelled]
    if result.selection_optimism is not None and not scored:
        print(
            f"note: the best of {len(result.history)} epochs was picked on the scored set itself; {recipe.metric} is "
            f"about {max(result.selection_optimism, 0.0):.3g} too high (cross-fitted: each half of the examples scored "
            "at the epoch that the other half picks); score a test set for an unbiased figure"
        )


def finish_world() -> None:
    """Close the process group on all ranks together."""
    close_process_group()
