"""A study, from options to report, and `--until`, which evaluates a run in progress."""
