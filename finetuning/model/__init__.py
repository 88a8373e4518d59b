"""The model of a task: tokenizer and configuration of its checkpoint, its encoder and its head."""
