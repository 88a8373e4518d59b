"""Engines: one protocol with a DeepSpeed and a PyTorch implementation; only this folder uses their sharding."""
