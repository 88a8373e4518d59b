"""Sweeps: running a grid of settings, and the table of their scores."""
