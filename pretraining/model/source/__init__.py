"""Untrusted checkpoints that a model starts from: configuration, weights, tokenizer."""
