"""What a run publishes: evaluated, proven exports."""
