"""Measures: what is computed from the scores of the checkpoints, under any weights or draws of them."""
