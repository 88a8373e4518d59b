"""The plan of a run: options, and all that is derived from them before a model is built."""
