"""One reader for each kind of run: the files that it leaves, as they stand now."""
