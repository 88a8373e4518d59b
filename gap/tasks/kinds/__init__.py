"""The kinds of task, one class each: reading, encoding, scoring, contamination search and cost estimate."""
