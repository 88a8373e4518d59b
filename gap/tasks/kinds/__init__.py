"""One class a kind of task: how it is read, encoded, scored, searched for in the corpus and its cost guessed."""
