"""Extractive question answering: files, windows, spans, scores."""
