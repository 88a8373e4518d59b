"""The loop: what a run is fed, its updates, and what they say."""
