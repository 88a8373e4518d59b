"""Publishing: evaluated, verified exports of a run's checkpoints."""
