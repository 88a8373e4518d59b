"""The embedded default: a small made-up world, its corpus and its task sets."""
