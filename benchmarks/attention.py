"""Which attention is fastest here: forward and backward pass of an encoder, by family, precision and length.

    python benchmarks/attention.py                    2 CPU cores, one thread: about five minutes
    python benchmarks/attention.py --tokens 32768     a GPU

Both kernels take turns on the same batch, without dropout; medians of CPU or GPU seconds. The losses of the first
batch are compared before anything is timed. Prints a Markdown table; `pretraining/model/attention.py` holds what
follows from it.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch

from pretraining.engines.updating.master_weights import MasterWeights
from pretraining.model.configuration import build_configuration
from pretraining.model.dropout import with_dropout
from pretraining.model.masked_lm import PretrainingModel, build_model
from runtime.machine import bf16_support
from shards.streaming.masking import mask_slots

SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
KERNELS = ("sdpa", "eager")
VOCABULARY, MASK_RATE = 2048, 0.15  # a small head, so that attention shows
LOSS_TOLERANCE = 2e-2  # of the loss, in bf16; 1e-4 in fp32


def batch_of(length: int, tokens: int, device: torch.device) -> dict[str, torch.Tensor]:
    """A micro-batch of random rows."""
    generator = torch.Generator().manual_seed(0)
    rows, slots = max(1, tokens // length), mask_slots(length - 2, MASK_RATE)
    places = torch.stack([torch.randperm(length - 2, generator=generator)[:slots] + 1 for _ in range(rows)])
    batch = {
        "input_ids": torch.randint(5, VOCABULARY, (rows, length), generator=generator),
        "mask_positions": places,
        "mask_labels": torch.randint(5, VOCABULARY, (rows, slots), generator=generator),
        "mask_weights": torch.ones(rows, slots),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def model_of(name: str, kernel: str, length: int, *, bf16: bool, device: torch.device) -> PretrainingModel:
    """A model without dropout that computes as the engine does."""
    config = build_configuration(name, vocab_size=VOCABULARY, special_ids=SPECIAL_IDS, max_seq_length=length)
    model = build_model(with_dropout(config, 0.0), attention=kernel).to(device)
    if bf16:
        MasterWeights(model)
    return model


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - begin
    begin = time.process_time()
    work()
    return time.process_time() - begin


def compare(
    name: str, length: int, tokens: int, repetitions: int, *, bf16: bool, device: torch.device
) -> dict[str, float]:
    """Median seconds of a forward and backward pass by kernel; SystemExit where the kernels' losses differ."""
    batch = batch_of(length, tokens, device)
    models = {kernel: model_of(name, kernel, length, bf16=bf16, device=device) for kernel in KERNELS}

    def step(kernel: str) -> float:
        outputs = models[kernel](**batch)
        loss = outputs["loss_sum"] / outputs["mask_count"]
        loss.backward()
        return float(loss.detach())

    losses = {kernel: step(kernel) for kernel in KERNELS}
    if abs(losses["eager"] / losses["sdpa"] - 1) > (LOSS_TOLERANCE if bf16 else 1e-4):
        raise SystemExit(f"{name}, length {length}: the losses of the kernels differ: {losses}")
    times: dict[str, list[float]] = {kernel: [] for kernel in KERNELS}
    for _ in range(repetitions):
        for kernel in KERNELS:
            times[kernel].append(seconds_of(lambda kernel=kernel: step(kernel), device))  # type: ignore[misc]
    return {kernel: statistics.median(values) for kernel, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="bert-mini,modernbert-mini")
    parser.add_argument("--lengths", default="64,128,256,512,1024,2048")
    parser.add_argument("--tokens", type=int, default=4096, help="of a micro-batch")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--precisions", default="fp32,bf16")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"one thread, {bf16_support('cpu')[1]}"
    print(f"\n`python {' '.join(sys.argv)}`, {where}, {platform.machine()}, torch {torch.__version__}\n")
    print("| model | precision | length | sdpa, ms | eager, ms | eager is faster by |\n|---|---|---|---|---|---|")
    for name in arguments.models.split(","):
        for precision in arguments.precisions.split(","):
            for length in map(int, arguments.lengths.split(",")):
                bf16 = precision == "bf16"
                found = compare(name, length, arguments.tokens, arguments.repetitions, bf16=bf16, device=device)
                ratio = found["sdpa"] / found["eager"]
                figures = " | ".join(f"{found[kernel] * 1e3:,.0f}" for kernel in KERNELS)
                print(f"| {name} | {precision} | {length} | {figures} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
