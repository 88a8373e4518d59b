"""Pretraining throughput beside the plain `transformers` Trainer: same model, tokens, batch, precision, one run.

    python benchmarks/throughput.py --model bert-mini --length 128 --rows 48 --updates 30            2 CPU cores
    python benchmarks/throughput.py --model bert-base --length 128 --rows 512 --updates 60 --bf16 --compile    a GPU

The Trainer reads the same token blocks from memory, cut to the same length, and masks with
`DataCollatorForLanguageModeling`: what run_mlm.py does with grouped texts. Times leave out each side's first third.
Prints a Markdown table: tokens per second, share of the device's peak by the same FLOP count, and the ratio.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    PreTrainedConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from launch.pretrain import main as pretrain
from pretraining.loop.training_data import build_small_world
from pretraining.model.configuration import build_configuration
from pretraining.model.flops import peak_flops, update_flops
from pretraining.model.masked_lm import build_model
from shards.storage.manifest import Manifest, read_manifest
from shards.storage.shard_file import read_block
from shards.streaming.masking import mask_slots

MASK_RATE = 0.15


def ours(arguments: argparse.Namespace, shards: Path, directory: Path) -> float:
    """Median tokens per second of the journal's last two thirds."""
    tokens = arguments.updates * arguments.rows * arguments.length
    options = {
        "shards": shards,
        "output_dir": directory,
        "model": arguments.model,
        "max_seq_length": arguments.length,
        "mask_rate": MASK_RATE,
        "global_batch_rows": arguments.rows,
        "per_device_train_batch_size": arguments.micro_rows,
        "budget_tokens": tokens,
        "series": "0",
        "bf16": str(arguments.bf16).lower(),
        "torch_compile": str(arguments.compile).lower(),
        "dataloader_num_workers": arguments.workers,
        "validation_rows": 8,
        "report_to": "none",
        "disable_tqdm": True,
        "learning_rate": 1e-4,
    }
    status = pretrain([text for name, value in options.items() for text in (f"--{name}", str(value))])
    if status:
        raise SystemExit(f"launch/pretrain.py ended with {status}")
    lines = [json.loads(text) for text in (directory / "journal.jsonl").read_text().splitlines()]
    return statistics.median(line["tokens_per_second"] for line in lines[len(lines) // 3 :])


class Clock(TrainerCallback):
    """Notes when each update ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: TrainingArguments, *_: object, **__: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def theirs(arguments: argparse.Namespace, shards: Path, directory: Path) -> float:
    """Tokens per second of the Trainer over the last two thirds of its updates."""
    manifest = read_manifest(shards)
    tokenizer = AutoTokenizer.from_pretrained(str(shards / manifest.tokenizer.path))
    rows = token_rows(shards, arguments.length, arguments.rows * arguments.updates, tokenizer)
    model = build_model(configuration(arguments, manifest)).transformer
    micro = arguments.micro_rows or arguments.rows
    training = TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=max(1, arguments.rows // micro),
        max_steps=arguments.updates,
        bf16=arguments.bf16,
        torch_compile=arguments.compile,
        dataloader_num_workers=arguments.workers,
        save_strategy="no",
        report_to="none",
        logging_steps=10_000,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    clock = Clock()
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASK_RATE)
    Trainer(model=model, args=training, train_dataset=rows, data_collator=collator, callbacks=[clock]).train()
    measured = clock.times[len(clock.times) // 3 :]
    return (len(measured) - 1) * arguments.rows * arguments.length / (measured[-1] - measured[0])


def configuration(arguments: argparse.Namespace, manifest: Manifest) -> PreTrainedConfig:
    """Of the model that both pipelines train."""
    return build_configuration(
        arguments.model,
        vocab_size=manifest.tokenizer.vocab_size,
        special_ids=manifest.tokenizer.special_ids,
        max_seq_length=arguments.length,
    )


def token_rows(shards: Path, length: int, count: int, tokenizer: object) -> list[dict[str, list[int]]]:
    """The corpus as rows of [CLS] tokens [SEP], as run_mlm.py groups texts; repeated when it is short."""
    entry = read_manifest(shards).split("train").shards[0]
    blocks = [
        read_block(shards / entry.name, int(offset), int(size))["tokens"]
        for offset, size in zip(entry.offsets, entry.sizes, strict=True)
    ]
    tokens = np.concatenate(blocks).astype(np.int64)
    width = length - 2
    whole = tokens[: len(tokens) // width * width].reshape(-1, width)
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id  # type: ignore[attr-defined]
    return [{"input_ids": [first, *whole[index % len(whole)].tolist(), last]} for index in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bert-mini")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--micro_rows", type=int, default=0)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--shards", default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        shards = Path(arguments.shards) if arguments.shards else build_small_world(root / "world")
        rates = {
            "transformers Trainer": theirs(arguments, shards, root / "theirs"),
            "launch/pretrain.py": ours(arguments, shards, root / "ours"),
        }
        manifest = read_manifest(shards)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    config = configuration(arguments, manifest)
    masked = arguments.rows * mask_slots(arguments.length - 2, MASK_RATE)
    flops = update_flops(config, num_sequences=arguments.rows, sequence_length=arguments.length, num_masked=masked) / (
        arguments.rows * arguments.length
    )
    peak = peak_flops(device)
    print(f"\n`python {' '.join(sys.argv)}`, {name}, {platform.machine()}, torch {torch.__version__}\n")
    print("| pipeline | tokens/s | share of peak | ratio |\n|---|---|---|---|")
    slowest = rates["transformers Trainer"]
    for pipeline, rate in rates.items():
        share = "" if peak is None else f"{rate * flops / peak:.1%}"
        print(f"| {pipeline} | {rate:,.0f} | {share} | {rate / slowest:.2f} |")


if __name__ == "__main__":
    main()
