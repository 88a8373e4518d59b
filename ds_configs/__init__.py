"""DeepSpeed JSON files; see README.md for which one to use."""
