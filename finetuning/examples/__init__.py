"""Examples of any task: reading, encoding into rows, batching, and joining to predictions by id."""
