"""The build: from text to a directory of shards, with duplicates left out."""
