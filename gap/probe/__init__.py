"""The linear probe: a linear model on the representations of a frozen encoder, trained to its optimum."""
