"""Whether the hub is reachable (checked once: its clients retry for most of a minute), and which names are paths."""

from __future__ import annotations

import functools
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import get_session

PROBE_SECONDS = 5.0


@functools.cache
def hub_is_reachable() -> bool:
    """Whether the hub answers at all; asked once per process. False if HF_HUB_OFFLINE is set."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception:  # the type depends on the HTTP client of the installed version
        return False
    return True


def local_files_only(name: str) -> bool:
    """Whether `from_pretrained` should stay offline: for a local path, and when the hub cannot be reached."""
    return Path(name).exists() or not hub_is_reachable()


def is_missing_path(name: str) -> bool:
    """Whether a name was meant as a local path that is missing: it looks like a path, or its parent folder exists."""
    path = Path(name)
    if name.startswith((".", "/", "~")) or len(path.parts) > 2:
        return True
    return len(path.parts) == 2 and path.parent.is_dir()
