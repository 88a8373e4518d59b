"""A study from its options to its end, and the looks while a run is going on."""
