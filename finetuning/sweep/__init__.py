"""Sweeps: a grid of settings run, scored and tabulated."""
