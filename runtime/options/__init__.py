"""Options: parsing a command line or a file into a dataclass, and rules between options."""
