"""File I/O: atomic durable writes, locks on output folders, and validated reads of untrusted files."""
