import os
import signal
from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shard_directories import SPECIAL_IDS, VOCAB_SIZE, vocabulary, write_directory

from shards.storage.manifest import read_manifest, write_manifest
from shards.storage.reader import ShardReader
from shards.streaming.stream import MaskedStream, StreamOptions, validation_batches
from shards.tokenization.vocabulary import fingerprint

OPTIONS = StreamOptions(global_batch_rows=12, micro_batch_rows=3, lengths=((0, 16), (36, 32)))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards")
    write_directory(path)
    return path


def open_stream(directory, options=OPTIONS, rank=0, world_size=1, **chosen):
    return MaskedStream(directory, options, rank, world_size, vocabulary=vocabulary(), chunk_tokens=512, **chosen)


def by_row(batches, sequences_per_row):
    """{global row: all of its model inputs}; no row occurs twice."""
    found = {}
    for batch in batches:
        for index, row in enumerate(batch.rows.tolist()):
            part = slice(index * sequences_per_row, (index + 1) * sequences_per_row)
            if row < 0:
                assert not batch.mask_weights[part].any()
                continue
            assert row not in found
            found[row] = tuple(
                getattr(batch, name)[part].tolist()
                for name in ("input_ids", "mask_positions", "mask_labels", "mask_weights")
            )
    return found


def rows_of(directory, options, world_size, updates, first_row=0, **chosen):
    found = {}
    sequences = options.sequence_shape(options.length_at(first_row))[0]
    for rank in range(world_size):
        stream = open_stream(directory, options, rank, world_size, **chosen)
        batches = islice(stream.batches(first_row), updates * stream.micro_batches_per_update)
        part = by_row(batches, sequences)
        assert not part.keys() & found.keys()
        found |= part
    return found


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=st.integers(1, 12), micro=st.integers(1, 7), objective=st.sampled_from(["mlm", "mlm+nsp"]))
def test_world_size_and_micro_batch_change_neither_rows_nor_masks(directory, world, micro, objective):
    whole = StreamOptions(global_batch_rows=12, micro_batch_rows=4, lengths=((0, 16),), objective=objective)
    other = StreamOptions(global_batch_rows=12, micro_batch_rows=micro, lengths=((0, 16),), objective=objective)
    expected = rows_of(directory, whole, 1, 4)
    assert sorted(expected) == list(range(48))
    assert rows_of(directory, other, world, 4) == expected


def test_a_resume_gives_the_uninterrupted_stream_over_epochs_and_lengths(directory):
    stream = open_stream(directory)
    per_update = stream.micro_batches_per_update
    updates = 2 * stream.rows_per_epoch // 12 + 2
    whole = list(islice(stream.batches(0), updates * per_update))
    for update in (1, 2, 3, updates // 2, updates - 1):
        resumed = islice(open_stream(directory).batches(update * 12), (updates - update) * per_update)
        for got, want in zip(resumed, whole[update * per_update :], strict=True):
            assert_same(got, want)


def test_the_chunk_size_changes_nothing(directory):
    stream = MaskedStream(directory, OPTIONS, 0, 1, vocabulary=vocabulary())
    for got, want in zip(islice(stream.batches(0), 60), islice(open_stream(directory).batches(0), 60), strict=True):
        assert_same(got, want)


def test_every_row_of_an_epoch_holds_the_stored_tokens_once(directory):
    options = StreamOptions(global_batch_rows=10, micro_batch_rows=10, lengths=((0, 16),), mask_rate=0.01)
    stream = open_stream(directory, options)
    seen = []
    for batch in islice(stream.batches(0), -(-stream.rows_per_epoch // 10)):
        ids = batch.input_ids.copy()
        np.put_along_axis(ids, batch.mask_positions, batch.mask_labels, axis=1)
        attention = np.ones_like(ids) if batch.attention_mask is None else batch.attention_mask
        for sequence, used, row in zip(ids, attention.sum(axis=1), batch.rows, strict=True):
            if row < stream.rows_per_epoch:
                seen.append(tuple(sequence[1 : used - 1].tolist()))
    reader = ShardReader(directory, read_manifest(directory), "train")
    stored = [reader.block(number).tokens for number in range(4)]
    expected = [tuple(block[first : first + 14].tolist()) for block in stored for first in range(0, len(block), 14)]
    assert sorted(seen) == sorted(expected)


def assert_same(got, want):
    for name, value in vars(want).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(got, name), value, err_msg=name)
        else:
            assert getattr(got, name) == value, name


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(directory, num_workers):
    stream = open_stream(directory)
    expected = list(islice(stream.batches(24), 600))
    batches = stream.batches(24, num_workers)
    for got, want in zip(islice(batches, 600), expected, strict=True):
        assert_same(got, want)
    batches.close()


@pytest.mark.slow
def test_a_spawned_worker_gives_the_same(directory):
    stream = open_stream(directory)
    expected = list(islice(stream.batches(0), 8))
    batches = stream.batches(0, 1, start_method="spawn")
    for got, want in zip(islice(batches, 8), expected, strict=True):
        assert_same(got, want)
    batches.close()


def test_a_killed_worker_is_a_prompt_error(directory):
    import multiprocessing

    batches = open_stream(directory).batches(0, 1)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="worker"):
        list(islice(batches, 100_000))


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp"])
def test_tokens_between_is_the_sum_of_the_batches(directory, objective):
    options = StreamOptions(
        global_batch_rows=12, micro_batch_rows=5, lengths=((0, 16), (36, 32), (300, 64)), objective=objective
    )
    stream = open_stream(directory, options)
    per_update = stream.micro_batches_per_update
    batches = list(islice(stream.batches(0), 80 * per_update))
    for first, last in ((0, 1), (2, 5), (3, 80), (0, 80), (30, 31)):
        counted = sum(batch.num_tokens for batch in batches[first * per_update : last * per_update])
        assert stream.tokens_between(first * 12, last * 12) == counted
    attended = [b.num_tokens if b.attention_mask is None else int(b.attention_mask.sum()) for b in batches]
    empty = sum(attended) - sum(batch.num_tokens for batch in batches)
    assert 0 <= empty < sum(attended) * 0.05


def test_text_bytes_between_are_exact_for_epochs_and_follow_the_stored_tokens(tmp_path, directory):
    data = write_directory(tmp_path / "shards")
    data["splits"]["train"]["text_bytes"] = 10_007
    write_manifest(tmp_path / "shards", data)
    options = StreamOptions(global_batch_rows=12, micro_batch_rows=5, lengths=((0, 16), (36, 32), (300, 64)))
    stream = open_stream(tmp_path / "shards", options)
    epoch, stored = stream.rows_per_epoch, data["splits"]["train"]["tokens"]
    assert stream.text_bytes_between(0, epoch) == stream.text_bytes_between(epoch, 2 * epoch) == 10_007
    assert stream.text_bytes_between(0, 3 * epoch) == 3 * 10_007
    # Of the tokens that are counted, those that an update's sequences add are no text.
    added = options.overhead * 12 * options.sequence_shape(16)[0]
    text_tokens = stream.tokens_between(0, 12) - added
    assert stream.text_bytes_between(0, 12) == round(10_007 / stored * text_tokens)
    assert open_stream(directory, options).text_bytes_between(0, epoch) is None


def test_shapes_follow_the_schedule_and_a_row_keeps_its_meaning(directory):
    stream = open_stream(directory)
    batches = list(islice(stream.batches(0), 4 * stream.micro_batches_per_update))
    assert {batch.input_ids.shape for batch in batches[:12]} == {(6, 16)}
    assert {batch.input_ids.shape for batch in batches[12:]} == {(3, 30)}
    assert stream.lengths_at(35) == 16
    assert stream.lengths_at(36) == 32


@pytest.mark.parametrize("world_size", [2, 5])
def test_padding_rows_are_static_in_shape_and_weigh_nothing(directory, world_size):
    options = StreamOptions(global_batch_rows=12, micro_batch_rows=4, lengths=((0, 16),), objective="mlm+nsp")
    for rank in range(world_size):
        stream = open_stream(directory, options, rank, world_size)
        for batch in islice(stream.batches(0), 6):
            assert batch.input_ids.shape == (4, 16)
            for index in np.flatnonzero(batch.rows < 0):
                assert batch.attention_mask[index].sum() == 3
                assert batch.mask_weights[index].sum() == 0
                assert batch.next_sentence_weights[index] == 0


def test_validation_reads_each_row_once_whatever_the_world_size(directory):
    options = StreamOptions(global_batch_rows=12, micro_batch_rows=4, lengths=((0, 16),))
    found = {}
    for world_size in (1, 2, 3):
        steps = set()
        found[world_size] = {}
        for rank in range(world_size):
            batches = list(validation_batches(directory, options, rank, world_size, 30, vocabulary=vocabulary()))
            steps.add(len(batches))
            part = by_row(batches, 1)
            assert not part.keys() & found[world_size].keys()
            found[world_size] |= part
        assert len(steps) == 1
        assert sorted(found[world_size]) == list(range(30))
    assert found[1] == found[2] == found[3]


def test_validation_masks_do_not_depend_on_the_seed(directory):
    first, second = (
        list(validation_batches(directory, StreamOptions(seed=seed), 0, 1, 10, vocabulary=vocabulary()))
        for seed in (0, 1)
    )
    for one, other in zip(first, second, strict=True):
        assert_same(one, other)


def test_fewer_shards_than_ranks_times_workers_work(tmp_path):
    write_directory(tmp_path, train=((90,),), validation=())
    options = StreamOptions(global_batch_rows=8, micro_batch_rows=2, lengths=((0, 16),))
    rows = []
    for rank in range(8):
        batches = open_stream(tmp_path, options, rank, 8).batches(0, 2 if rank == 0 else 0)
        rows += [row for batch in islice(batches, 3) for row in batch.rows.tolist() if row >= 0]
        batches.close()
    assert sorted(rows) == list(range(24))


def test_new_masks_in_each_epoch(directory):
    options = StreamOptions(global_batch_rows=4, micro_batch_rows=4, lengths=((0, 64),), mask_rate=0.3)
    stream = open_stream(directory, options)
    positions = {}
    updates = -(-2 * stream.rows_per_epoch // 4)
    for batch in islice(stream.batches(0), updates):
        for row, places, labels in zip(batch.rows, batch.mask_positions, batch.mask_labels, strict=True):
            positions.setdefault(int(row) // stream.rows_per_epoch, set()).add((tuple(places), tuple(labels)))
    assert not positions[0] & positions[1]


def save_tokenizer(folder, words=VOCAB_SIZE):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [f"[{name.upper()}]" for name in SPECIAL_IDS]
    table = {token: number for number, token in enumerate(names + [f"w{number}" for number in range(5, words)])}
    backend = Tokenizer(models.WordLevel(table, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {f"{name}_token": f"[{name.upper()}]" for name in SPECIAL_IDS}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.save_pretrained(folder)
    return fingerprint(tokenizer)


def test_the_tokenizer_beside_the_shards_is_used_and_another_is_refused(tmp_path):
    data = write_directory(tmp_path)
    data["tokenizer"]["fingerprint"] = save_tokenizer(tmp_path / "tokenizer")
    write_manifest(tmp_path, data)
    got = next(MaskedStream(tmp_path, OPTIONS, 0, 1).batches(0))
    assert_same(got, next(open_stream(tmp_path).batches(0)))
    next(validation_batches(tmp_path, OPTIONS, 0, 1, 5))
    save_tokenizer(tmp_path / "tokenizer", words=VOCAB_SIZE - 1)
    with pytest.raises(ValueError, match="tokenizer fingerprint"):
        MaskedStream(tmp_path, OPTIONS, 0, 1)


def test_damage_stops_the_stream_before_a_row_of_the_shard_is_used(tmp_path):
    write_directory(tmp_path, train=((1000, 700),))
    path = tmp_path / "train-000000.tar"
    content = bytearray(path.read_bytes())
    content[-1500] ^= 1
    path.write_bytes(content)
    stream = open_stream(tmp_path)
    with pytest.raises(ValueError, match=r"train-000000\.tar: its sha256"):
        next(stream.batches(0))
    with pytest.raises(ValueError, match=r"train-000000\.tar: its sha256"):
        open_stream(tmp_path, verify="full")
    path.write_bytes(content[:-1024])
    with pytest.raises(ValueError, match=r"train-000000\.tar: \d+ bytes"):
        open_stream(tmp_path)


def test_a_first_row_inside_an_update_is_refused(directory):
    with pytest.raises(ValueError, match="multiple of 12 rows"):
        next(open_stream(directory).batches(5))


def test_words_stored_in_the_shards_bound_the_masks(tmp_path):
    write_directory(tmp_path, with_words=True)
    options = StreamOptions(global_batch_rows=8, micro_batch_rows=8, lengths=((0, 34),), whole_word=True, mask_rate=0.2)
    stream = open_stream(tmp_path, options)
    reader = ShardReader(tmp_path, read_manifest(tmp_path), "train")
    stored = {}
    for number in range(4):
        block = reader.block(number)
        for first in range(0, len(block.tokens), 32):
            stored[tuple(block.tokens[first : first + 32].tolist())] = block.word_starts[first : first + 32]
    checked = 0
    for batch in islice(stream.batches(0), 10):
        original = batch.input_ids.copy()
        np.put_along_axis(original, batch.mask_positions, batch.mask_labels, axis=1)
        for ids, places, weights in zip(original, batch.mask_positions, batch.mask_weights, strict=True):
            starts = stored.get(tuple(ids[1:33].tolist()))
            if starts is None:
                continue
            hidden = np.zeros(33, dtype=bool)
            hidden[places[weights > 0] - 1] = True
            special = np.append(ids[1:33] < 5, True)
            bound = np.append(starts, True) | special | np.concatenate([[True], special[:-1]])
            words = np.cumsum(bound)
            for word in np.unique(words[hidden]):
                assert hidden[(words == word) & ~special].all()
                checked += 1
    assert checked > 100
