"""The model: configuration, network, and its cost in memory and FLOPs."""
