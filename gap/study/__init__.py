"""A study from its options to its end, and the looks at a run in progress."""
