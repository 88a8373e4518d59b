"""Intervals: variance by source, the bootstrap, the error spent over looks, power."""
