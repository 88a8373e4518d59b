"""The update: schedule, optimizers, master weights, loss scaling."""
