"""The names that options choose between, apart from the code that they stand for: `--help` does not import torch."""

from __future__ import annotations

# How a head pools the tokens of a row: the first one, or the mean or maximum of all (finetuning/model/heads.py).
POOLINGS = ("cls", "mean", "max")

# What is kept of a text that is too long (finetuning/recipes/texts/rows.py).
TRUNCATIONS = ("head", "tail", "head+tail")

# Whose exact match and F1 are computed; auto: that of the answers (finetuning/recipes/questions/recipe.py).
LANGUAGES = ("auto", "en", "zh")
