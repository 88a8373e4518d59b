"""Processes: ranks and collectives, signals, liveness, failures and fault injection."""
