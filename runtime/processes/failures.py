"""Failures that are not bugs: a command reports them with their message, and without a traceback."""

from __future__ import annotations

import errno

# The system's error numbers for a named file or directory that is missing, of the wrong kind, or may not be used.
UNUSABLE = frozenset(
    (
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
        *(errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO),
    )
)


class Failed(RuntimeError):
    """The work could not be done, though the request was valid: the message says why, and what to do."""


def is_unusable_path(error: BaseException) -> bool:
    """Whether a path that the user named cannot be used; not so for a disk or a network that fails."""
    return isinstance(error, OSError) and error.errno in UNUSABLE


def is_users_to_mend(error: BaseException) -> bool:
    """Whether the options, or the files that they name, have to be changed before the command can work."""
    return isinstance(error, ValueError) or is_unusable_path(error)
