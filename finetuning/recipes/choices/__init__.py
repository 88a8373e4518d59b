"""Multiple choice, and the chain that answers in the chosen paragraph."""
