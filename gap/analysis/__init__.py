"""From scores to results: for one task, for all tasks, and in words."""
