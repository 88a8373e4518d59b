"""Storage of shards, on disk or behind https: manifest, tar files, verified reading."""
