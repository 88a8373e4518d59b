import pytest
import torch

from pretraining.overfit.first_batch import SAMPLE_VOCABULARY, first_batch, write_sample_shards
from shards.storage.manifest import read_manifest
from shards.streaming.options import StreamOptions


@pytest.fixture(scope="module")
def sample_shards(tmp_path_factory):
    return write_sample_shards(tmp_path_factory.mktemp("sample"))


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp"])
def test_a_batch_of_the_sample_is_what_the_model_takes(sample_shards, objective):
    options = StreamOptions(
        global_batch_rows=6, micro_batch_rows=6, lengths=((0, 32),), objective=objective, mask_rate=0.2
    )
    batch = first_batch(sample_shards, options, torch.device("cpu"))
    record = read_manifest(sample_shards).tokenizer
    assert record.vocab_size <= SAMPLE_VOCABULARY
    assert batch["input_ids"].shape == (6, 32)
    assert batch["input_ids"].max() < record.vocab_size
    assert (batch["input_ids"][:, 0] == record.special_ids["cls"]).all()
    assert batch["mask_weights"].sum() > 6
    assert ("next_sentence_labels" in batch) == (objective == "mlm+nsp")
    again = first_batch(sample_shards, options, torch.device("cpu"))
    assert all(torch.equal(batch[name], again[name]) for name in batch)
