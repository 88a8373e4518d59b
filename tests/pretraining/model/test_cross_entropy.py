import pytest
import torch
from torch import nn

from pretraining.model import cross_entropy
from pretraining.model.cross_entropy import weighted_sums

ROWS, WIDTH = 23, 97


def case(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(ROWS, WIDTH, generator=generator)).to(dtype).requires_grad_()
    labels = torch.randint(WIDTH, (ROWS,), generator=generator)
    labels[:5] = logits[:5].argmax(-1)
    weights = torch.rand(ROWS, generator=generator)
    weights[3] = 0.0
    return logits, labels, weights


@pytest.mark.parametrize("chunk", [1, 3 * WIDTH, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_and_gradient_are_those_of_the_plain_loss_in_fp32(monkeypatch, chunk, dtype):
    monkeypatch.setitem(cross_entropy.CHUNK_ELEMENTS, "cpu", chunk)
    logits, labels, weights = case(dtype)
    loss, total, correct = weighted_sums(logits, labels, weights)
    loss.backward()
    plain = logits.detach().float().requires_grad_()
    expected = (nn.functional.cross_entropy(plain, labels, reduction="none") * weights).sum()
    expected.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(logits.grad.float(), plain.grad.to(dtype).float(), atol=1e-7, rtol=1e-2)
    assert total.item() == pytest.approx(weights.sum().item())
    assert correct.item() == pytest.approx(((plain.argmax(-1) == labels) * weights).sum().item())


def test_a_slot_of_weight_zero_adds_nothing():
    logits, labels, weights = case()
    with torch.no_grad():
        logits[3] *= 100
    loss, _, _ = weighted_sums(logits, labels, weights)
    loss.backward()
    assert torch.equal(logits.grad[3], torch.zeros(WIDTH))


def test_of_equal_logits_argmax_takes_the_first():
    logits, label, weight = torch.zeros(1, 4), torch.tensor([2]), torch.ones(1)
    assert weighted_sums(logits, label, weight)[2] == 1
    assert weighted_sums(logits, label, weight, exact_accuracy=True)[2] == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_is_seen_in_the_loss(value):
    logits, labels, weights = case()
    with torch.no_grad():
        logits[0, 1] = value
    assert not torch.isfinite(weighted_sums(logits, labels, weights)[0])


def test_it_keeps_no_fp32_copy_of_the_logits():
    logits, labels, weights = case(torch.bfloat16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        weighted_sums(logits, labels, weights)
    assert not [tensor for tensor in kept if tensor.dtype == torch.float32 and tensor.numel() >= logits.numel()]
