"""Statistics: variance by source, the bootstrap, curves and their crossings, power."""
