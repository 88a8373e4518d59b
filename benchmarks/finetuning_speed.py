"""Fine-tuning speed beside the plain `transformers` Trainer: the same rows, model, seed and updates, in one run.

    python benchmarks/finetuning_speed.py --tasks classification qa

Ours by default, which is bf16 where the processor has units for it, and in fp32 as the Trainer's default is. Three
Trainers: padding to the maximum as run_glue and run_qa do by default, dynamic padding, and its own length groups.
The texts are generated, with lengths as IMDb's and SQuAD's (log-normal; medians of 230 and 150 tokens). Wall time and
the CPU time of this process stand side by side, so that other work on the machine can be seen; the order rotates with
each repetition. Scores are those of one evaluation function for all, over the same held-out rows.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import BertConfig, PreTrainedTokenizerFast, Trainer, TrainingArguments

from finetuning.examples.batches import batch_shape
from finetuning.examples.recipe import Feature, FinetuningOptions
from finetuning.loop.evaluation import evaluate
from finetuning.loop.training import finetune, open_engine
from finetuning.model.heads import random_headed
from finetuning.recipes.questions.recipe import QARecipe, QASettings
from finetuning.recipes.questions.squad import Answer, Question
from finetuning.recipes.questions.windows import Windows
from finetuning.recipes.texts.labelled_text import LabelledText
from finetuning.recipes.texts.recipe import TextRecipe
from finetuning.recipes.texts.rows import TextSettings
from runtime.machine import bf16_support

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PLAIN = tuple(f"w{number}" for number in range(2000))
TELLING = (tuple(f"good{number}" for number in range(8)), tuple(f"bad{number}" for number in range(8)))
LENGTHS = {"classification": (230, 0.65), "qa": (150, 0.35)}  # median tokens, sigma of the logarithm
LONGEST = {"classification": 512, "qa": 384}
METRIC = {"classification": "accuracy", "qa": "f1"}


@dataclass(frozen=True)
class Measured:
    """One training: seconds on the wall and of this process's CPU, and the score afterwards."""

    wall_seconds: float
    cpu_seconds: float
    score: float


class WithLoss(nn.Module):
    """A recipe's model as the Trainer wants it: batch in, loss out."""

    def __init__(self, recipe: Any, model: nn.Module) -> None:
        super().__init__()
        self.recipe, self.model = recipe, model

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = self.model(**{name: batch[name] for name in self.recipe.model_inputs})
        return {"loss": self.recipe.measure(outputs, batch)["loss"].mean()}


class Rows(torch.utils.data.Dataset):
    """Encoded rows for the Trainer."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {**self.features[number], "length": len(self.features[number]["input_ids"])}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a Markdown table, and write it as JSON with --output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["classification", "qa"], choices=list(LENGTHS))
    parser.add_argument("--train_rows", type=int, default=128)
    parser.add_argument("--evaluation_rows", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch_rows", type=int, default=16)
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    found = {task: measure_task(task, options) for task in options.tasks}
    print(table(found, options))
    if options.output is not None:
        content = {
            task: {way: [vars(one) for one in runs] for way, runs in ways.items()} for task, ways in found.items()
        }
        options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measure_task(task: str, options: argparse.Namespace) -> dict[str, list[Measured]]:
    """Every way, `repetitions` times, each time from the same weights of a new seed."""
    tokenizer = make_tokenizer()
    recipe = make_recipe(task, tokenizer, options)
    ways: dict[str, Callable[[int], Measured]] = {
        "this project": lambda seed: ours(recipe, options, seed, METRIC[task], bf16="auto"),
        "this project, fp32": lambda seed: ours(recipe, options, seed, METRIC[task], bf16="false"),
        "Trainer, padded to the maximum": lambda seed: trainer(recipe, options, seed, task, pad_to=LONGEST[task]),
        "Trainer, dynamic padding": lambda seed: trainer(recipe, options, seed, task),
        "Trainer, length groups": lambda seed: trainer(recipe, options, seed, task, grouped=True),
    }
    names = list(ways)
    found: dict[str, list[Measured]] = {name: [] for name in names}
    for seed in range(options.repetitions):
        for name in names[seed % len(names) :] + names[: seed % len(names)]:
            found[name].append(ways[name](seed))
    return found


def ours(recipe: Any, options: argparse.Namespace, seed: int, metric: str, *, bf16: str) -> Measured:
    """The project's loop, validation left out."""
    model = make_model(recipe, options, seed)
    settings = finetuning_options(options, seed, bf16=bf16)
    engine = open_engine(model, settings, batch_shape(settings, 1))
    torch.set_num_threads(options.threads)
    sets, recipe.evaluation_sets = recipe.evaluation_sets, {}
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        finetune(recipe, model, settings, engine=engine)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        recipe.evaluation_sets = sets
    return Measured(wall, cpu, score(recipe, engine, metric))


def trainer(
    recipe: Any, options: argparse.Namespace, seed: int, task: str, *, pad_to: int | None = None, grouped: bool = False
) -> Measured:
    """The plain Trainer with the same optimizer settings, schedule and number of updates."""
    model = make_model(recipe, options, seed)
    updates = options.epochs * math.ceil(len(recipe.train_features) / options.batch_rows)
    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            output_dir=directory,
            per_device_train_batch_size=options.batch_rows,
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            weight_decay=0.01,
            max_grad_norm=1.0,
            lr_scheduler_type="linear",
            warmup_steps=math.ceil(0.1 * updates),
            train_sampling_strategy="group_by_length" if grouped else "random",
            remove_unused_columns=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            seed=seed,
            use_cpu=not torch.cuda.is_available(),
        )
        runner = Trainer(
            model=WithLoss(recipe, model),
            args=arguments,
            train_dataset=Rows(recipe.train_features),
            data_collator=lambda features: padded(recipe.collate(features), recipe.pad_id, pad_to),
        )
        torch.set_num_threads(options.threads)
        wall, cpu = time.perf_counter(), time.process_time()
        runner.train()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    settings = finetuning_options(options, seed)
    engine = open_engine(model, settings, batch_shape(settings, 1))
    return Measured(wall, cpu, score(recipe, engine, METRIC[task]))


def score(recipe: Any, engine: Any, metric: str) -> float:
    """The held-out score of a trained model, by one function for all."""
    return evaluate(recipe, engine, recipe.evaluation_sets["validation"], batch_rows=64).scores[metric]


def padded(batch: Mapping[str, torch.Tensor], pad_id: int, length: int | None) -> dict[str, torch.Tensor]:
    """Every [R, T] tensor of a batch made `length` wide; None leaves it as wide as its longest row."""
    if length is None:
        return dict(batch)
    wide = {}
    for name, tensor in batch.items():
        missing = length - tensor.shape[1] if tensor.dim() == 2 else 0
        wide[name] = nn.functional.pad(tensor, (0, max(missing, 0)), value=pad_id if name == "input_ids" else 0)
    return wide


def finetuning_options(options: argparse.Namespace, seed: int, *, bf16: str = "false") -> FinetuningOptions:
    """The project's options for the same training."""
    return FinetuningOptions(
        num_train_epochs=options.epochs,
        global_batch_rows=options.batch_rows,
        learning_rate=options.learning_rate,
        seed=seed,
        bf16=bf16,
        report_to="none",
        save_model=False,
    )


def make_model(recipe: Any, options: argparse.Namespace, seed: int) -> nn.Module:
    """A random BERT with the recipe's head: the same weights for the same seed."""
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(PLAIN) + sum(map(len, TELLING)),
        hidden_size=options.hidden_size,
        num_hidden_layers=options.layers,
        num_attention_heads=max(1, options.hidden_size // 64),
        intermediate_size=4 * options.hidden_size,
        attn_implementation="sdpa",
    )
    return recipe.build_model(random_headed(config, recipe.head, seed=seed).draw(seed))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    words = (*SPECIAL, *PLAIN, *TELLING[0], *TELLING[1])
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=SPECIAL[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def make_recipe(task: str, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace) -> Any:
    """Generated examples of a task as its recipe sees them."""
    generator = random.Random(0)
    sizes = {"train": options.train_rows, "validation": options.evaluation_rows}
    if task == "classification":
        texts = {split: [review(generator, f"{split}{i}") for i in range(size)] for split, size in sizes.items()}
        settings = TextSettings(max_seq_length=LONGEST[task], pooling="mean")
        return TextRecipe("reviews", labels=("0", "1"), splits=texts, tokenizer=tokenizer, settings=settings)
    questions = {split: [question(generator, f"{split}{i}") for i in range(size)] for split, size in sizes.items()}
    return QARecipe(questions, tokenizer, QASettings(windows=Windows(LONGEST[task], 128)))


def review(generator: random.Random, name: str) -> LabelledText:
    """A text with telling words of its class."""
    words, kind = words_of(generator, "classification"), generator.randrange(2)
    for place in generator.sample(range(len(words)), max(1, len(words) // 10)):
        words[place] = generator.choice(TELLING[kind])
    return LabelledText(name, " ".join(words), label=str(kind))


def question(generator: random.Random, name: str) -> Question:
    """A context with one word of either kind; the question asks for one of them."""
    words, kind = words_of(generator, "qa"), generator.randrange(2)
    places = generator.sample(range(len(words)), 2)
    for place, telling in zip(places, TELLING, strict=True):
        words[place] = generator.choice(telling)
    asked = " ".join([*generator.sample(PLAIN, 8), PLAIN[kind]])
    start = len(" ".join(words[: places[kind]])) + (places[kind] > 0)
    return Question(name, asked, " ".join(words), (Answer(words[places[kind]], start),))


def words_of(generator: random.Random, task: str) -> list[str]:
    """Filler words, as many as the task's length distribution says."""
    median, sigma = LENGTHS[task]
    count = max(8, round(median * math.exp(generator.gauss(0.0, sigma))))
    return [generator.choice(PLAIN) for _ in range(count)]


def table(found: Mapping[str, Mapping[str, Sequence[Measured]]], options: argparse.Namespace) -> str:
    """Medians over the repetitions; the ratios are of the ways' medians to ours."""
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {options.threads} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}; {options.layers} layers of {options.hidden_size}, "
        f"{options.train_rows} rows x {options.epochs} epochs, batch {options.batch_rows}, "
        f"medians of {options.repetitions}; {bf16_support('cuda' if torch.cuda.is_available() else 'cpu')[1]}",
        "",
        "| task | way | wall s | wall time over ours | CPU s | CPU time over ours | score |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, ways in found.items():
        medians = {way: np.median([list(vars(one).values()) for one in runs], axis=0) for way, runs in ways.items()}
        for way, (wall, cpu, scored) in medians.items():
            over_wall, over_cpu, _ = medians[way] / medians["this project"]
            lines.append(
                f"| {task} | {way} | {wall:.1f} | {over_wall:.2f} | {cpu:.1f} | {over_cpu:.2f} | {scored:.3f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
