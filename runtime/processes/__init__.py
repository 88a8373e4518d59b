"""Processes: ranks and what they agree on, requests to stop, and places where a test makes one die."""
