"""The recipes: of each its files, rows, scores and run. The commands lie one folder up."""
