"""Labelled text: readers, GLUE's tasks, the recipe and its metrics."""
