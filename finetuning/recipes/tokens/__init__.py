"""Token classification: sentences of tagged words, their windows and scores, the recipe and its run."""
