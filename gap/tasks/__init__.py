"""Tasks: specified on the command line, read, encoded, and searched for in the corpus."""
