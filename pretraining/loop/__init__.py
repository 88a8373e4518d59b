"""The training loop: batches, updates, evaluation and the journal."""
