"""Checkpoints: atomic writes, where a run resumes, and the list of exported checkpoints."""
