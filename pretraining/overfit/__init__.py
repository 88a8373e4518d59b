"""Can this model overfit one batch? Asked by a command, and before a long run."""
