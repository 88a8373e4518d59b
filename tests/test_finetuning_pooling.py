"""Pooling sees real tokens only, and the head fits any encoder."""

import pytest
import torch
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel

from finetuning.encoder import Encoder
from finetuning.pooling import POOLINGS, PooledClassifier, pool

HIDDEN = torch.tensor([[[1.0, -5.0], [3.0, -1.0], [100.0, 100.0]]])
MASK = torch.tensor([[1, 1, 0]])


def test_values_by_hand():
    assert pool(HIDDEN, MASK, "cls").tolist() == [[1.0, -5.0]]
    assert pool(HIDDEN, MASK, "mean").tolist() == [[2.0, -3.0]]
    assert pool(HIDDEN, MASK, "max").tolist() == [[3.0, -1.0]]
    with pytest.raises(ValueError, match="one of cls, mean, max"):
        pool(HIDDEN, MASK, "sum")


def encoders():
    torch.manual_seed(0)
    shape = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}
    bert = BertModel(BertConfig(intermediate_size=32, **shape), add_pooling_layer=False)
    modern = ModernBertModel(
        ModernBertConfig(intermediate_size=32, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2, **shape)
    )
    return {"bert": Encoder(bert), "modernbert": Encoder(modern)}


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_changes_nothing(family, pooling):
    model = PooledClassifier(encoders()[family], num_outputs=3, pooling=pooling, dropout=0.5).eval()
    ids = torch.tensor([[2, 7, 8, 9, 3]])
    short = model(ids, torch.ones_like(ids))["logits"]
    padded = torch.nn.functional.pad(ids, (0, 6))
    long = model(padded, (padded != 0).long(), token_type_ids=torch.zeros_like(padded))["logits"]
    assert short.shape == (1, 3)
    assert torch.allclose(short, long, atol=1e-5)


def test_dropout_acts_in_training_only():
    model = PooledClassifier(encoders()["bert"], num_outputs=2, dropout=0.5)
    ids = torch.arange(2, 12).reshape(2, 5)
    mask = torch.ones_like(ids)
    assert torch.equal(model.eval()(ids, mask)["logits"], model(ids, mask)["logits"])
    assert not torch.equal(model.train()(ids, mask)["logits"], model(ids, mask)["logits"])


def test_impossible_settings_are_refused():
    encoder = encoders()["bert"]
    with pytest.raises(ValueError, match="--pooling first"):
        PooledClassifier(encoder, num_outputs=2, pooling="first")
    with pytest.raises(ValueError, match="--head_dropout 1"):
        PooledClassifier(encoder, num_outputs=2, dropout=1.0)
