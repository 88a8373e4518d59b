"""Cells: planning, the list of jobs, the workers, and storage with provenance."""
