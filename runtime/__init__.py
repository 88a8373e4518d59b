"""Base of all commands: files, processes, options, the machine; nothing about models or data."""

import os

# How long torch's OpenMP threads spin before they sleep. OpenMP reads it when torch is loaded, so each of our packages
# imports this one first. By default they spin for so long that another busy process on the machine makes small
# models twenty times slower (docs/lab-notes.md); a short spin costs nothing on a quiet one.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# Taken before the imports that take seconds: a launcher that dies meanwhile is seen by its ranks.
STARTED_BY = os.getppid()
