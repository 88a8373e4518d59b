"""The overfit check: whether a model can overfit one batch, as a command and before a long run."""
