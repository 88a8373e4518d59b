"""The options of each recipe, in a module of the recipe's name, and of predictions; no torch is imported."""
