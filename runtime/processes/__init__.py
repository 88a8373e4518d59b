"""Processes: ranks and what they agree on, being asked to stop, and where a test lets one die."""
