"""The stream: from one integer to masked micro-batches."""
