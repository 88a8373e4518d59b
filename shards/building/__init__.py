"""The shard build: from text to a directory of shards, without duplicates."""
