"""The tokenizer: training or loading, saving and fingerprints."""
