"""The command of a recipe, from options to result files, for one seed or several."""
