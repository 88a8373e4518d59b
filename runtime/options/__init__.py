"""Options: from a command line or a file to a dataclass, and rules that any command can state."""
