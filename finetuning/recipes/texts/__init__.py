"""Labelled text: files, GLUE's tasks, pooling, metrics."""
