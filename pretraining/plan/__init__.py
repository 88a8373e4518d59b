"""The plan of a run: options, and all that follows from them before a model is built."""
