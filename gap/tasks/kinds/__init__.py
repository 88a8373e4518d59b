"""One class per kind of task: how it is read, encoded, scored, searched for in the corpus, and its cost estimated."""
