"""The tables of the cells: checkpoints, seeds, examples, and what a checkpoint cost."""
