"""Checkpoints: committed or not there, where a run goes on, and the list of the exported ones."""
