"""The one fine-tuning loop: training, evaluation, what a resume needs, the outcome."""
