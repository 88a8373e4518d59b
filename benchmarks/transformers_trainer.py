"""The plain `transformers` Trainer as the peer of the benchmarks: its rows, its model, its rate, and the limit of both.

The rows are what run_mlm.py makes of grouped texts: [CLS] tokens [SEP], masked by `DataCollatorForLanguageModeling`.
"""

from __future__ import annotations

import os
import platform
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from runtime.machine import bf16_support
from shards.building.builder import build_shards
from shards.building.options import BuildOptions
from shards.storage.manifest import read_manifest
from shards.storage.shard_file import read_block

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
DOCUMENTS, WORDS_OF_A_DOCUMENT = 600, 300


@dataclass(frozen=True)
class TrainerRun:
    """How the Trainer trains; what is not named here is its default."""

    rows: int
    updates: int
    warm_updates: int
    mask_rate: float = 0.15
    micro_rows: int = 0  # 0: all rows of an update at once
    bf16: bool = False
    fp16: bool = False
    compiled: bool = False
    workers: int = 0


class Clock(TrainerCallback):
    """Notes when each update ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: TrainingArguments, *_: object, **__: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def random_shards(directory: Path, vocab_size: int) -> Path:
    """Shards of random words under a vocabulary of `vocab_size` tokens, built as any text is; their directory."""
    generator = random.Random(0)
    words = [f"w{number}" for number in range(vocab_size - len(SPECIAL))]
    directory.mkdir(parents=True)
    texts = (" ".join(generator.choices(words, k=WORDS_OF_A_DOCUMENT)) for _ in range(DOCUMENTS))
    (directory / "corpus.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    tokenizer_of(words).save_pretrained(directory / "tokenizer")
    build_shards(
        BuildOptions(
            input=[str(directory / "corpus.txt")],
            document="line",
            output_dir=str(directory / "shards"),
            tokenizer=str(directory / "tokenizer"),
            near_duplicates="ignore",
            validation_fraction=0.05,
            processes=1,
        )
    )
    return directory / "shards"


def tokenizer_of(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token a word."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[1]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def tokenizer_in(shards: Path) -> Any:
    return AutoTokenizer.from_pretrained(str(shards / read_manifest(shards).tokenizer.path))


def token_rows(shards: Path, length: int, count: int, tokenizer: Any) -> list[dict[str, list[int]]]:
    """The corpus as rows of [CLS] tokens [SEP], as run_mlm.py groups texts; repeated when it is short."""
    entry = read_manifest(shards).split("train").shards[0]
    blocks = [
        read_block(shards / entry.name, int(offset), int(size))["tokens"]
        for offset, size in zip(entry.offsets, entry.sizes, strict=True)
    ]
    tokens = np.concatenate(blocks).astype(np.int64)
    width = length - 2
    whole = tokens[: len(tokens) // width * width].reshape(-1, width)
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    return [{"input_ids": [first, *whole[index % len(whole)].tolist(), last]} for index in range(count)]


def plain_model(config: PreTrainedConfig, *, attention: str = "sdpa", seed: int = 0) -> nn.Module:
    """The model as `transformers` makes it from a configuration."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForMaskedLM.from_config(config, attn_implementation=attention)


def trainer_rate(
    model: nn.Module, rows: Sequence[dict[str, list[int]]], tokenizer: Any, run: TrainerRun, directory: Path
) -> float:
    """Tokens per second of the Trainer after the warm updates; without a tokenizer rows are not masked."""
    clock = Clock()
    micro = run.micro_rows or run.rows
    arguments = trainer_arguments(
        directory,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=max(1, run.rows // micro),
        max_steps=run.updates,
        bf16=run.bf16,
        fp16=run.fp16,
        torch_compile=run.compiled,
        dataloader_num_workers=run.workers,
    )
    masking = DataCollatorForLanguageModeling(tokenizer, mlm_probability=run.mask_rate) if tokenizer else None
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=masking, callbacks=[clock]).train()
    measured = clock.times[run.warm_updates - 1 :]
    return (len(measured) - 1) * run.rows * len(rows[0]["input_ids"]) / (measured[-1] - measured[0])


def trainer_arguments(directory: Path, **changes: Any) -> TrainingArguments:
    """The Trainer's own defaults, without saving, reports and output. Precisions may differ within one process."""
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return TrainingArguments(
        output_dir=str(directory),
        **{"save_strategy": "no", "report_to": "none", "logging_steps": 10_000, "disable_tqdm": True, **changes},
        use_cpu=not torch.cuda.is_available(),
    )


def matmul_rate(dtype: torch.dtype, device: torch.device, *, width: int = 2048, seconds: float = 0.5) -> float:
    """The best rate of a product of two [width, width] matrices, operations per second, for this many threads."""
    left = torch.ones(width, width, dtype=dtype, device=device)
    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < seconds or best == float("inf"):
        before = time.perf_counter()
        product = torch.mm(left, left)
        if device.type == "cuda":
            for _ in range(9):  # a single launch is too short to be measured
                torch.mm(left, left, out=product)
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - before) / (10 if device.type == "cuda" else 1))
    return 2.0 * width**3 / best


def machine() -> str:
    """The processor or GPU, and whether it computes bf16, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {bf16_support('cuda')[1]}"
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} CPU cores, {torch.get_num_threads()} threads, {bf16_support('cpu')[1]}"
