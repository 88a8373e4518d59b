"""Pooling sees real tokens only."""

import pytest
import torch

from finetuning.model.heads import pool

HIDDEN = torch.tensor([[[1.0, -5.0], [3.0, -1.0], [100.0, 100.0]]])
MASK = torch.tensor([[1, 1, 0]])


def test_values_by_hand():
    assert pool(HIDDEN, MASK, "cls").tolist() == [[1.0, -5.0]]
    assert pool(HIDDEN, MASK, "mean").tolist() == [[2.0, -3.0]]
    assert pool(HIDDEN, MASK, "max").tolist() == [[3.0, -1.0]]
    with pytest.raises(ValueError, match="one of cls, mean, max"):
        pool(HIDDEN, MASK, "sum")
