"""The live view of running and finished work: read-only, on a page and as lines in a terminal."""
