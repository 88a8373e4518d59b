"""Checkpoints: atomic writes, resuming, and the list of exported checkpoints."""
