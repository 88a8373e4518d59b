"""Memory and communication of a rank on 8 to 512 GPUs, computed: the tables of docs/scaling.md. Nothing is measured.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --ranks 8,64 --length 1024 --micro_rows 16

Memory is the plan's own estimate (`pretraining/model/memory.py`). Communication is counted as published: in ZeRO-1 and
ZeRO-2 a rank sends twice the parameters an update, in ZeRO-3 three times (Rajbhandari et al. 2020, section 7); FSDP
gathers them twice and reduces gradients once as well (Zhao et al. 2023), which our engine does in fp32. A ring sends
the (N - 1) / N part of each. Seconds are that volume over the slowest link, with nothing hidden behind computation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from transformers import PreTrainedConfig

from pretraining.model.configuration import build_configuration
from pretraining.model.families import num_parameters, shape_only
from pretraining.model.flops import update_flops
from pretraining.model.memory import Sharding, estimate_memory
from shards.streaming.masking import mask_slots
from shards.streaming.order import MAX_LANES

MASK_RATE = 0.3
SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
GPUS_OF_A_MACHINE = 8
# Bytes per second that one GPU can send. NVLink: NVIDIA H100 data sheet, 900 GB/s both ways together. Between machines:
# NVIDIA DGX H100 data sheet, one ConnectX-7 of 400 Gbit/s for each GPU.
WITHIN_MACHINE, BETWEEN_MACHINES = 450e9, 50e9
GPU_FLOPS, REACHED = 989e12, 0.4  # dense bf16 of an H100 SXM by its data sheet; the share is an assumption
# Hidden width, layers, heads, feed-forward width: base and large as published, 1 billion as a wider large.
MODELS = {
    "bert-base": ("bert", 768, 12, 12, 3072, 30_522),
    "bert-large": ("bert", 1024, 24, 16, 4096, 30_522),
    "bert, 1 billion": ("bert", 1792, 24, 28, 7168, 50_368),
}
MODES = {"ZeRO-1": "zero1", "ZeRO-2": "zero2", "ZeRO-3": "zero3", "FSDP2": "full_shard"}
SENT = {"zero1": 2 + 2, "zero2": 2 + 2, "zero3": 2 + 2 + 2, "full_shard": 2 + 2 + 4}  # bytes a parameter, in bf16
STATE_BYTES = 12  # a parameter in fp32 and two moments: what a checkpoint gathers on every rank


def configuration(name: str, length: int) -> PreTrainedConfig:
    family, hidden, layers, heads, wide, vocabulary = MODELS[name]
    overrides = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": wide,
    }
    return build_configuration(
        f"{family}-base",
        vocab_size=vocabulary,
        special_ids=SPECIAL_IDS,
        max_seq_length=length,
        config_overrides=overrides,
    )


def sent_bytes(parameters: int, mode: str, ranks: int) -> float:
    """Bytes that a rank sends in an update of one micro-batch."""
    return SENT[mode] * parameters * (ranks - 1) / ranks


def gigabytes(config: PreTrainedConfig, mode: str, ranks: int, rows: int, length: int) -> tuple[float, float]:
    """Of a rank: on the device, and on the host for its share of a checkpoint."""
    estimate = estimate_memory(
        config,
        Sharding(mode, ranks, bf16=True, reduce_bucket_elements=50_000_000),  # as in ds_configs/
        num_sequences=rows,
        sequence_length=length,
        num_masked_per_sequence=mask_slots(length - 2, MASK_RATE),
        saving_ranks=ranks,
    )
    return estimate.device_bytes / 1e9, estimate.host_bytes / 1e9


def table(models: Sequence[str], rank_counts: Sequence[int], *, rows: int, length: int) -> str:
    """A row for each model, sharding and number of ranks, in Markdown."""
    lines = [
        "| model | ranks | global batch | sharding | GB a rank | GB copied for a save | GB sent an update "
        "| s sending | s computing | s gathering a checkpoint |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in models:
        config = configuration(name, length)
        parameters = num_parameters(shape_only(config))
        masked = rows * mask_slots(length - 2, MASK_RATE)
        flops = update_flops(config, num_sequences=rows, sequence_length=length, num_masked=masked)
        for ranks in rank_counts:
            link = WITHIN_MACHINE if ranks <= GPUS_OF_A_MACHINE else BETWEEN_MACHINES
            for title, mode in MODES.items():
                device, host = gigabytes(config, mode, ranks, rows, length)
                sent = sent_bytes(parameters, mode, ranks)
                runs = f"{ranks}" if ranks <= MAX_LANES else f"{ranks} (refused)"
                batch = f"{rows * ranks:,} rows"
                figures = f"{device:.1f} | {host:.2f} | {sent / 1e9:.2f} | {sent / link:.3f}"
                seconds = f"{flops / (GPU_FLOPS * REACHED):.3f} | {STATE_BYTES * parameters / link:.2f}"
                lines.append(
                    f"| {name}, {parameters / 1e6:,.0f} M | {runs} | {batch} | {title} | {figures} | {seconds} |"
                )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--ranks", default="8,64,512")
    parser.add_argument("--micro_rows", type=int, default=32, help="rows of a rank in an update")
    parser.add_argument("--length", type=int, default=512)
    arguments = parser.parse_args(argv)
    counts = [int(number) for number in arguments.ranks.split(",")]
    print(f"`python {' '.join(sys.argv)}`\n")
    print(table(arguments.models, counts, rows=arguments.micro_rows, length=arguments.length))


if __name__ == "__main__":
    main()
