import pytest
import torch
from transformers import AutoConfig, AutoModel

from finetuning.examples import pair_template
from finetuning.examples.pair_template import padded_rows, row_limit

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 30}


@pytest.mark.parametrize("pad", [0, 1, 3])
@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "camembert", "mpnet", "esm", "electra", "markuplm"])
def test_the_longest_row_fits_the_positions_with_the_padding_of_its_batch(model_type, multiple, pad, monkeypatch):
    monkeypatch.setattr(pair_template, "pad_multiple", lambda: multiple)
    config = AutoConfig.for_model(model_type, **SHAPE, max_position_embeddings=30, pad_token_id=pad)
    model = AutoModel.from_config(config, attn_implementation="eager").eval()
    assert row_limit(9 if multiple == 1 else 15, config) == (9 if multiple == 1 else 15)
    for asked in (28, 512):
        limit = row_limit(asked, config)
        assert 30 - 4 - multiple < limit <= 30
        batch = padded_rows([[7] * limit, [7] * 5], [[0] * limit, [0] * 5], pad_id=pad)
        with torch.no_grad():
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])


def test_rows_without_a_limit_of_the_model_are_as_long_as_was_asked():
    assert row_limit(700, AutoConfig.for_model("xlnet")) == row_limit(700, None) == 700
