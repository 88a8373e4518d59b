"""Cells: planned, listed, run by workers, stored with what they were made of."""
