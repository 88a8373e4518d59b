"""Command lines: parse, build, call; no logic of their own."""
