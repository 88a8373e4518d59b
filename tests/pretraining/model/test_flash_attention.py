"""Flash attention without its package: the kernel's inputs, seen by a stand-in that computes the same."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.flash_attention import get_target_dtype

from tests.pretraining.model.test_masked_lm import batch_of, mean_loss, small_model


@pytest.fixture
def calls(monkeypatch):
    """What the stand-in was called with: (precision in the kernel, mask [S, T] or None, window)."""
    found = []

    def kernel(module, query, key, value, attention_mask, scaling=None, sliding_window=None, **more):
        precision = get_target_dtype(query, module) or query.dtype
        found.append((precision, attention_mask, sliding_window))
        length = query.shape[2]
        mask = torch.ones(1, 1, length, length, dtype=torch.bool)
        if attention_mask is not None:
            mask = mask & attention_mask[:, None, None, :].bool()
        if sliding_window is not None:  # the kernel looks sliding_window - 1 tokens to each side
            position = torch.arange(length)
            mask = mask & ((position[:, None] - position).abs() < sliding_window)
        query, key, value = (tensor.to(precision) for tensor in (query, key, value))
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling).transpose(1, 2), None

    monkeypatch.setattr("pretraining.model.attention.is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(PreTrainedModel, "_check_and_adjust_attn_implementation", lambda self, name, *_, **__: name)
    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_attention_2", kernel)
    return found


@pytest.mark.parametrize(("family", "objective"), [("bert", "mlm"), ("bert", "mlm+nsp"), ("modernbert", "mlm")])
def test_where_it_is_installed_auto_uses_it_with_the_losses_of_sdpa(calls, family, objective):
    batch, losses = batch_of(objective), []
    for attention in ("auto", "sdpa"):
        model = small_model(family, objective, attn_implementation=attention, bf16=True)
        assert model.config._attn_implementation == {"auto": "flash_attention_2"}.get(attention, attention)
        with torch.autocast("cpu", torch.bfloat16):
            loss = mean_loss(model(**batch))
        loss.backward()
        losses.append(loss.item())
    layers = model.config.num_hidden_layers
    assert [precision for precision, _, _ in calls] == [torch.bfloat16] * layers
    assert all(torch.equal(mask, batch["attention_mask"].to(mask.dtype)) for _, mask, _ in calls)
    windows = {"bert": [None] * layers, "modernbert": [None, 9, 9]}[family]
    assert [window for _, _, window in calls] == windows
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)
