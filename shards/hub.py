"""Whether the hub can be reached: asked once, for its own clients retry an unreachable one for most of a minute."""

from __future__ import annotations

import functools
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import get_session

PROBE_SECONDS = 5.0


@functools.cache
def hub_is_reachable() -> bool:
    """Whether the hub answers at all; asked once a process. False where HF_HUB_OFFLINE is set."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception:  # of whatever client the installed version uses: no answer, no hub
        return False
    return True


def local_files_only(name: str) -> bool:
    """Whether `from_pretrained` is to ask nobody: for a path that is here, and where the hub cannot be reached."""
    return Path(name).exists() or not hub_is_reachable()
