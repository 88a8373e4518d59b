"""What a run gives away: evaluated, proven exports."""
