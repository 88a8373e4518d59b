"""From scores to results: one task, all tasks, and in words."""
