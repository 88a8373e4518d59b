"""The search of learning rate and epochs: its grid, and the choice."""
