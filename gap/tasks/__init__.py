"""Tasks: specification, reading, encoding, and the search for contamination."""
