"""The stream of masked micro-batches, whose state is one integer."""
