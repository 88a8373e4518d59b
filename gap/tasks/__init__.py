"""Tasks: specified on the command line, read, encoded, and looked for in the corpus."""
