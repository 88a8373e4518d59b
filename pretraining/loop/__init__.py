"""The loop: batches, updates, evaluation and the journal."""
