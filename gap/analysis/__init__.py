"""Analysis of the scores: per task, over all tasks, and as text."""
