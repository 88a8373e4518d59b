"""What every command builds on: files, processes, options, the machine; no model, no data."""

import os

# How long torch's OpenMP threads spin before they sleep; it is read when torch is loaded, so every package of ours
# imports this one first. By default they spin for so long that one other busy process on the machine makes small
# models twenty times slower (docs/lab-notes.md); a short spin costs nothing on a quiet one.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
