import math

import pytest
import torch
from tiny_encoder import built_model

from pretraining.overfit.overfit import (
    OverfitResult,
    overfit_one_batch,
    side_by_side,
    target_entropy,
    unsolved_verdict,
)

SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
VOCAB_SIZE, SEQUENCES, LENGTH, SLOTS = 200, 8, 32, 5


def zipf_batch(seed=0):
    """Eight sequences whose tokens are drawn by Zipf's law, so that the unigram entropy lies well below ln V."""
    generator = torch.Generator().manual_seed(seed)
    weights = 1 / torch.arange(1, VOCAB_SIZE - 4).float()
    ids = torch.multinomial(weights, SEQUENCES * LENGTH, replacement=True, generator=generator) + 5
    ids = ids.reshape(SEQUENCES, LENGTH)
    ids[:, 0], ids[:, -1] = SPECIAL_IDS["cls"], SPECIAL_IDS["sep"]
    order = [torch.randperm(LENGTH - 2, generator=generator)[:SLOTS] + 1 for _ in range(SEQUENCES)]
    positions = torch.stack(order).sort(1).values
    return {
        "input_ids": ids.scatter(1, positions, SPECIAL_IDS["mask"]),
        "mask_positions": positions,
        "mask_labels": ids.gather(1, positions),
        "mask_weights": torch.ones(SEQUENCES, SLOTS),
    }


def small_model(name, **options):
    return built_model(name, vocab_size=VOCAB_SIZE, special_ids=SPECIAL_IDS, max_seq_length=LENGTH, **options)


@pytest.mark.parametrize(
    ("name", "learning_rate", "verdict"),
    [
        ("bert-tiny", 1e-3, "solved"),
        ("bert-tiny", 1e-2, "stuck"),
        ("bert-tiny", 1e-5, "too slow"),
        ("bert-tiny", 1e-4, "too slow"),
        ("bert-tiny", 1e38, "not finite"),
        ("modernbert-tiny", 2e-3, "solved"),
        ("modernbert-tiny", 1e-5, "too slow"),
    ],
)
def test_each_verdict_where_it_is_the_case(name, learning_rate, verdict):
    result = overfit_one_batch(small_model(name), zipf_batch(), learning_rate, max_updates=60)
    assert result.verdict == verdict, result.summary()
    if verdict == "stuck":
        assert result.final_loss == pytest.approx(result.unigram_entropy, rel=0.1)
        assert result.distinct_predictions == 1
    if verdict == "solved":
        assert len(result.losses) < 60  # it stops once solved
        assert result.final_loss <= result.unigram_entropy / 2
        result.require_solved()
    else:
        with pytest.raises(ValueError, match=f"{verdict}.*updates"):
            result.require_solved()


def test_trying_leaves_the_model_as_it_was():
    model = small_model("bert-tiny")
    before = [parameter.clone() for parameter in model.parameters()]
    overfit_one_batch(model, zipf_batch(), 1e-3, max_updates=2)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert model.training


def test_it_computes_in_the_precision_of_the_run(monkeypatch):
    model, batch, seen = small_model("bert-tiny"), zipf_batch(), []
    forward = type(model).forward

    def spied(self, *args, **inputs):
        seen.append(self.transformer.get_input_embeddings().weight.dtype)
        return forward(self, *args, **inputs)

    monkeypatch.setattr(type(model), "forward", spied)
    for bf16 in (False, True):
        overfit_one_batch(model, batch, 1e-3, max_updates=1, bf16=bf16)
    assert seen == [torch.float32] * 2 + [torch.bfloat16] * 2  # the update and the evaluation


def test_next_sentence_batches_and_unused_slots_are_taken():
    batch = zipf_batch()
    batch["mask_weights"][:, -1] = 0.0
    batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
    batch["next_sentence_labels"] = torch.arange(SEQUENCES) % 2
    batch["next_sentence_weights"] = torch.ones(SEQUENCES)
    result = overfit_one_batch(small_model("bert-tiny", objective="mlm+nsp"), batch, 1e-3, max_updates=2)
    assert len(result.losses) == 2
    used = batch["mask_weights"] > 0
    assert result.distinct_labels == len(batch["mask_labels"][used].unique())


def test_unigram_entropy_is_the_loss_of_the_best_constant_prediction():
    labels = torch.tensor([[7, 7, 7, 8], [9, 8, 7, 1]])
    weights = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 0]])
    share = torch.tensor([4 / 7, 2 / 7, 1 / 7])
    assert target_entropy(labels, weights) == pytest.approx(-(share * share.log()).sum().item())


@pytest.mark.parametrize(
    ("losses", "most_common_share", "verdict"),
    [
        ([9.0, 5, 4, 4, 4, 4, 4, 4], 1.0, "stuck"),  # at the entropy, one token
        ([9.0, 9, 30, 30, 30, 30, 30, 30], 0.5, "stuck"),  # above its start
        ([9.0, 8.9, 8.9, 8.8, 8.8, 8.8, 8.7, 8.7], 1.0, "too slow"),  # hardly begun, one token by chance
        ([9.0, 8, 7, 6, 5, 4, 3, 2], 0.2, "too slow"),  # still falling
        ([9.0, 5, 4, 4, 4, 4, 4, 4], 0.3, "too slow"),  # varied predictions: it has learnt something
        ([9.0, 9.1], 1.0, "too slow"),  # dropout's noise is no divergence
        ([9.0], 1.0, "too slow"),
    ],
)
def test_verdict_from_loss_and_diversity(losses, most_common_share, verdict):
    assert unsolved_verdict(losses, most_common_share, entropy=4.0) == verdict


def test_tokens_stand_side_by_side():
    batch = {
        "input_ids": torch.tensor([[2, 10, 4, 12, 4, 3, 0], [2, 4, 3, 0, 0, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0, 0]]),
        "mask_positions": torch.tensor([[2, 4], [1, 0]]),
        "mask_labels": torch.tensor([[11, 13], [14, 0]]),
        "mask_weights": torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
    }
    names = {0: "[PAD]", 2: "[CLS]", 3: "[SEP]", 4: "[MASK]", 10: "a", 11: "bb", 12: "c", 13: "d", 14: "e"}
    predictions = torch.tensor([[11, 10], [14, 3]])
    text = side_by_side(batch, predictions, lambda ids: [names[one] for one in ids])
    assert text.splitlines() == [
        "Input Tokens:     [CLS]|a|[MASK]|c|[MASK]|[SEP]",
        "Target Tokens:    [CLS]|a|bb    |c|d     |[SEP]",
        "Predicted Tokens: [CLS]|a|bb    |c|!a!   |[SEP]",
        "",
        "Input Tokens:     [CLS]|[MASK]|[SEP]",
        "Target Tokens:    [CLS]|e     |[SEP]",
        "Predicted Tokens: [CLS]|e     |[SEP]",
    ]
    folded = side_by_side(batch, predictions, lambda ids: [names[one] for one in ids], width=40)
    assert all(len(line) <= 40 for line in folded.splitlines())
    assert folded.count("Input Tokens:") == 3


def test_the_summary_names_the_numbers_and_the_remedy():
    result = OverfitResult("stuck", 0.01, (5.0, 3.0), 3.0, 0.125, 2.99, 24, 1, 1.0, torch.zeros(1, 1))
    assert "loss 5.00 -> 3.00 (unigram entropy 2.99), 12% correct" in result.summary()
    assert result.summary().endswith(result.remedy)
    assert math.isclose(result.learning_rate, 0.01)
