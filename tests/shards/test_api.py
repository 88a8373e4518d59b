"""`build` and `stream` from Python: the command's shards, and batches for a plain loop."""

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.processes.interruption import MARKER_NAME
from shards import BuildOptions, build, stream
from shards.storage.manifest import read_manifest
from shards.streaming.options import StreamOptions
from shards.streaming.stream import MaskedStream

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "vocab_size": 128,
    "block_tokens": 256,
    "near_duplicates": "ignore",
    "validation_fraction": 0.2,
    "document": "line",
}
SHAPE = {"batch_rows": 6, "max_seq_length": 16, "mask_rate": 0.2, "seed": 3}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    words = ["".join(letters) for letters in zip("abcdefgh", "ijklmnop", "qrstuvwx", strict=True)]
    lines = [" ".join(words[(row + step * step) % 8] for step in range(20 + row % 9)) for row in range(200)]
    path = tmp_path_factory.mktemp("api") / "a.txt"
    path.write_text("\n".join(dict.fromkeys(lines)) + "\n")
    return path


@pytest.fixture(scope="module")
def shards(corpus):
    summary = build(input=corpus, output_dir=corpus.parent / "shards", processes=1, progress=False, **SMALL)
    assert summary.manifest.split("train").tokens > 1000
    return corpus.parent / "shards"


def test_a_build_is_that_of_the_command_and_is_kept(corpus, shards, tmp_path, capsys):
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    variables = dict(os.environ)
    (shards / MARKER_NAME).write_text("{}")
    again = build(BuildOptions(input=[str(corpus)], output_dir=str(shards), processes=1, **SMALL), progress=False)
    assert again.already_built
    assert not (shards / MARKER_NAME).exists()
    assert dict(os.environ) == variables
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == handlers
    assert capsys.readouterr() == ("", "")
    from launch.build_shards import main

    options = [part for name, value in SMALL.items() for part in (f"--{name}", str(value))]
    assert main(["--input", str(corpus), "--output_dir", str(tmp_path / "command"), "--processes", "1", *options]) == 0
    files = [path.name for path in sorted(shards.glob("*.tar"))]
    assert files
    assert [(tmp_path / "command" / name).read_bytes() for name in files] == [
        (shards / name).read_bytes() for name in files
    ]


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"vocab_sizes": 128}, TypeError, "did you mean vocab_size"),
        ({"invalid_utf8": "stop"}, TypeError, "it was renamed to on_bad_text"),
        ({"vocab_size": 3}, ValueError, "--vocab_size 3: use at least 64"),
        ({"input": "nowhere.txt"}, ValueError, "nowhere.txt"),
    ],
)
def test_a_build_that_cannot_be_is_refused(corpus, tmp_path, wrong, error, said):
    with pytest.raises(error, match=said):
        build(**{"input": corpus, "output_dir": tmp_path / "out", "processes": 1, "progress": False, **wrong})


def test_batches_are_those_of_pretraining_with_a_label_where_a_token_is_predicted(shards):
    batches = stream(shards, **SHAPE)
    options = StreamOptions(seed=3, global_batch_rows=6, micro_batch_rows=6, lengths=((0, 16),), mask_rate=0.2)
    expected = MaskedStream(shards, options, 0, 1).batches(0)
    for batch, made in zip(islice(batches, 40), expected, strict=False):
        assert {name: (values.dtype, tuple(values.shape)) for name, values in batch.items()} == dict.fromkeys(
            ("input_ids", "attention_mask", "labels"), (torch.int64, (6, 16))
        )
        np.testing.assert_array_equal(batch["input_ids"], made.input_ids)
        assert int(batch["attention_mask"].sum()) == made.num_tokens
        predicted = (batch["labels"] != -100).numpy()
        assert predicted.sum() == np.count_nonzero(made.mask_weights)
        row, slot = np.nonzero(made.mask_weights)
        assert (batch["labels"].numpy()[row, made.mask_positions[row, slot]] == made.mask_labels[row, slot]).all()
        assert not predicted[batch["attention_mask"].numpy() == 0].any()
    assert batches.position == 40 * 6 > batches.rows_per_epoch


def test_a_position_given_again_goes_on_behind_the_last_batch(shards):
    whole = [batch["input_ids"].tolist() for batch in islice(stream(shards, **SHAPE), 9)]
    first = stream(shards, **SHAPE)
    begun = [batch["input_ids"].tolist() for batch in islice(first, 4)]
    assert (first.position, begun) == (24, whole[:4])
    more = [batch["input_ids"].tolist() for batch in islice(first, 2)]
    resumed = [batch["input_ids"].tolist() for batch in islice(stream(shards, position=first.position, **SHAPE), 3)]
    assert (more, resumed) == (whole[4:6], whole[6:])
    with pytest.raises(ValueError, match=r"position 5: .* a multiple of batch_rows, 6"):
        stream(shards, position=5, **SHAPE)
    with pytest.raises(ValueError, match="always begins at 0"):
        stream(shards, position=6, split="validation", **SHAPE)


@pytest.mark.parametrize(
    ("given", "said"), [({"world_size": 8}, "None and world_size 8"), ({"rank": 0}, "0 and world_")]
)
def test_a_rank_without_its_world_is_refused(tmp_path, given, said):
    with pytest.raises(ValueError, match=f"rank {said}.*: give both or neither"):
        stream(tmp_path, **given)


def test_ranks_share_a_batch_and_the_held_out_rows_come_once(shards):
    alone = next(iter(stream(shards, return_tensors="np", **SHAPE)))
    shares = [next(iter(stream(shards, rank=rank, world_size=4, return_tensors="np", **SHAPE))) for rank in range(4)]
    assert [len(share["input_ids"]) for share in shares] == [2, 2, 1, 1]
    rows = sorted(row for share in shares for row in share["input_ids"].tolist())
    assert rows == sorted(alone["input_ids"].tolist())
    held_out = stream(shards, split="validation", validation_rows=20, **SHAPE)
    assert sum(len(batch["input_ids"]) for batch in held_out) == 20
    assert sum(len(batch["input_ids"]) for batch in held_out) == 20
    assert held_out.vocab_size == read_manifest(shards).tokenizer.vocab_size
    assert (held_out.tokenizer / "tokenizer.json").is_file()


def test_pairs_have_their_types_and_labels(shards):
    batch = next(iter(stream(shards, objective="mlm+nsp", **SHAPE)))
    assert set(batch) == {"input_ids", "attention_mask", "labels", "token_type_ids", "next_sentence_label"}
    assert set(batch["next_sentence_label"].tolist()) <= {0, 1, -100}


def test_a_model_of_transformers_learns_from_it(shards):
    from transformers import BertConfig, BertForMaskedLM

    batches = stream(shards, **SHAPE)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForMaskedLM(BertConfig(vocab_size=batches.vocab_size, max_position_embeddings=16, **shape))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for batch in islice(batches, 60):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"split": "test"}, "split 'test'"),
        ({"return_tensors": "tf"}, "return_tensors 'tf'"),
        ({"mask_rate": 2.0}, "2.0"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(shards, wrong, said):
    with pytest.raises(ValueError, match=said):
        stream(shards, **{**SHAPE, **wrong})


@pytest.mark.slow
def test_a_script_may_build_with_several_processes_below_its_guard(corpus, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom shards import build\n"
        'if __name__ == "__main__":\n'
        f"    build(input=sys.argv[1], output_dir='out', processes=2, progress=False, **{SMALL!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), str(corpus)], cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").glob("*.tar"))
