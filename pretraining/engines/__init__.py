"""Engines: one protocol, DeepSpeed and PyTorch behind it; nothing else of ours imports either's sharding."""
