import pytest
import torch
from transformers import AutoConfig

from pretraining.engines.updating.master_weights import MasterWeights
from pretraining.model.attention import attention_for, faster_attention
from pretraining.model.masked_lm import build_model
from tests.pretraining.model.test_masked_lm import batch_of, mean_loss, small_model


@pytest.mark.parametrize(
    ("family", "bf16", "device", "length", "kernel"),
    [
        ("bert", True, "cpu", 128, "eager"),
        ("modernbert", True, "cpu", 256, "eager"),
        ("bert", True, "cpu", 257, "sdpa"),
        ("bert", False, "cpu", 128, "sdpa"),
        ("bert", True, "cuda", 128, "sdpa"),
        ("roberta", True, "cpu", 128, "sdpa"),  # not measured
    ],
)
def test_the_table(family, bf16, device, length, kernel):
    config = AutoConfig.for_model(family)
    assert faster_attention(config, bf16=bf16, device_type=device, length=length) == kernel
    assert attention_for("auto", config, bf16=bf16, device_type=device, length=length) == kernel
    assert attention_for("sdpa", config, bf16=bf16, device_type=device, length=length) == "sdpa"


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 5e-3)])
def test_eager_attention_has_the_losses_and_gradients_of_the_fused_kernel(family, bf16, tolerance):
    batch, found = batch_of("mlm"), []
    assert batch["attention_mask"].min() == 0  # padded
    for attention in ("sdpa", "eager"):
        model = build_model(small_model(family, "mlm").config, attention=attention, dropout=0.0)
        masters = MasterWeights(model) if bf16 else None
        loss = mean_loss(model(**batch))
        loss.backward()
        weights = model.parameters() if masters is None else masters.parameters.values()
        norm = torch.stack([weight.grad.norm() for weight in weights if weight.grad is not None]).norm()
        found.append((loss.item(), norm.item()))
    assert found[1][0] == pytest.approx(found[0][0], rel=tolerance)
    assert found[1][1] == pytest.approx(found[0][1], rel=20 * tolerance)
