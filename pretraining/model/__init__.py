"""The model: configuration, network, and what it costs in memory and in FLOPs."""
