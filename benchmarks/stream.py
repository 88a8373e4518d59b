"""How fast one core streams and masks, beside webdataset with the collator of transformers on the same shards.

    python benchmarks/stream.py --seconds 5

writes its own shards of random tokens and prints a Markdown table. CPU seconds are those of this process, so that
other work on the machine counts little; the wall clock stands beside them.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import webdataset
from tokenizers import Tokenizer, models
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from shards.storage.manifest import write_manifest
from shards.storage.shard_file import write_shard
from shards.streaming.masking import Vocabulary, continues_word
from shards.streaming.stream import MaskedStream, StreamOptions

VOCAB_SIZE = 30_000
BLOCK_TOKENS = 1 << 16
NAMES = ("pad", "unk", "cls", "sep", "mask")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every variant and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="CPU seconds per line of the table")
    parser.add_argument("--num_blocks", type=int, default=256, help=f"blocks of {BLOCK_TOKENS} tokens")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_directory(directory, arguments.num_blocks)
        print(f"{cpu_name()}, one process and one thread, {datetime.now(UTC):%Y-%m-%d}\n")
        print("| pipeline | sequence length | million tokens / CPU second | million tokens / wall second |")
        print("|---|---|---|---|")
        for title, length, open_batches in variants(directory):
            cpu, wall = measure(open_batches, arguments.seconds)
            print(f"| {title} | {length} | {cpu / 1e6:.2f} | {wall / 1e6:.2f} |", flush=True)


def variants(directory: Path) -> Iterator[tuple[str, int, Callable[[], Iterator[int]]]]:
    """(title, sequence length, function that starts a stream of token counts) for each line of the table."""
    for length in (128, 512):
        micro = 32 if length == 128 else 8
        for title, options in (
            ("this stream", {}),
            ("this stream, 30 % masked", {"mask_rate": 0.3}),
            ("this stream, whole words (vocabulary table)", {"whole_word": True}),
            ("this stream, next-sentence pairs", {"objective": "mlm+nsp"}),
        ):
            chosen = StreamOptions(
                global_batch_rows=48,
                micro_batch_rows=micro,
                lengths=((0, length),),
                **options,  # type: ignore[arg-type]
            )
            yield title, length, lambda chosen=chosen: ours(directory, chosen)
        yield (
            "webdataset + DataCollatorForLanguageModeling",
            length,
            lambda length=length, micro=micro: plain(directory, length, micro),
        )


def measure(open_batches: Callable[[], Iterator[int]], seconds: float) -> tuple[float, float]:
    """Tokens per CPU second and per wall second, the first batches (opening and hashing the shards) left out."""
    batches = open_batches()
    for _ in islice(batches, 50):
        pass
    cpu, wall, tokens = time.process_time(), time.perf_counter(), 0
    while time.process_time() - cpu < seconds:
        tokens += sum(islice(batches, 20))
    return tokens / (time.process_time() - cpu), tokens / (time.perf_counter() - wall)


def ours(directory: Path, options: StreamOptions) -> Iterator[int]:
    """Tokens of each micro-batch of this project's stream, as tensors."""
    stream = MaskedStream(directory, options, 0, 1, vocabulary=vocabulary())
    for batch in stream.batches(0):
        torch.from_numpy(batch.input_ids)
        torch.from_numpy(batch.mask_labels)
        yield batch.num_tokens


def plain(directory: Path, length: int, micro_rows: int) -> Iterator[int]:
    """The same shards through webdataset's own shuffle and decoder and the collator of transformers."""
    backend = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens())}, "[UNK]"))
    special = {f"{name}_token": f"[{name.upper()}]" for name in NAMES}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    urls = [str(path) for path in sorted(directory.glob("train-*.tar"))]
    content = length - 2

    def sequences(samples: Iterator[dict[str, np.ndarray]]) -> Iterator[list[int]]:
        for sample in samples:
            block = sample["tokens.npy"]
            for first in range(0, len(block) - content + 1, content):
                yield [2, *block[first : first + content].tolist(), 3]

    dataset = (
        webdataset.WebDataset(urls, shardshuffle=100, seed=0, empty_check=False)
        .decode()
        .compose(sequences)
        .shuffle(1000)
        .batched(micro_rows, collation_fn=None, partial=False)
        .repeat()
    )
    for batch in dataset:
        yield collator([{"input_ids": sequence} for sequence in batch])["input_ids"].numel()


def write_directory(directory: Path, num_blocks: int) -> None:
    """Shards of random tokens in documents of 100 to 900 tokens, 64 blocks each."""
    rng = np.random.default_rng(0)
    entries = []
    for number, first in enumerate(range(0, num_blocks, 64)):
        blocks = ((f"train-{index:08d}", random_block(rng)) for index in range(first, min(first + 64, num_blocks)))
        entries.append(write_shard(directory / f"train-{number:06d}.tar", blocks))
    listed = [block for entry in entries for block in entry["blocks"]]
    totals = {name: sum(block[name] for block in listed) for name in ("documents", "tokens")}
    tokenizer = {"path": "tokenizer", "fingerprint": "none", "vocab_size": VOCAB_SIZE, "special_ids": special_ids()}
    data = {
        "schema_version": 1,
        "tokenizer": tokenizer,
        "token_dtype": "uint16",
        "block_tokens": BLOCK_TOKENS,
        "splits": {"train": {**totals, "shards": entries}},
    }
    write_manifest(directory, json.loads(json.dumps(data)))


def random_block(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One block of `write_shard`."""
    ends = np.cumsum(rng.integers(100, 900, BLOCK_TOKENS // 100))
    stored = rng.integers(len(NAMES), VOCAB_SIZE, BLOCK_TOKENS).astype(np.uint16)
    ends = ends[ends < BLOCK_TOKENS]
    stored[ends - 1] = special_ids()["sep"]
    return {"tokens": stored, "documents": np.concatenate([[0], ends]).astype(np.uint32)}


def vocabulary() -> Vocabulary:
    """A vocabulary in which one token in four continues a word, about as WordPiece text has it."""
    ids = special_ids()
    table = continues_word(tokens())
    return Vocabulary(VOCAB_SIZE, tuple(ids.values()), ids["pad"], ids["cls"], ids["sep"], ids["mask"], table)


def tokens() -> list[str]:
    """The tokens of `vocabulary`."""
    ordinary = [f"##{number}" if number % 4 == 0 else f"w{number}" for number in range(len(NAMES), VOCAB_SIZE)]
    return [f"[{name.upper()}]" for name in NAMES] + ordinary


def special_ids() -> dict[str, int]:
    """Special token name -> id."""
    return {name: number for number, name in enumerate(NAMES)}


def cpu_name() -> str:
    """The processor's name as Linux knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
