"""Cells: planned, listed, run by workers, and stored with their provenance."""
