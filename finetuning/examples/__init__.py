"""Examples of any task: read, cut to rows, batched, and joined to predictions by id."""
