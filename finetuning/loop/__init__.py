"""The fine-tuning loop: training, evaluation, resuming and results."""
