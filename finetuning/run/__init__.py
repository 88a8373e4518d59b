"""A recipe's command from its options to its files, one seed or several."""
