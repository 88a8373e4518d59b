"""Exceptions that are not bugs: a command prints their message without a traceback."""

from __future__ import annotations

import errno
from collections.abc import Sequence

# The system's error numbers for a named file or directory that is missing, of the wrong kind, or may not be used.
UNUSABLE = frozenset(
    (
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
        *(errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO),
    )
)


class Failed(RuntimeError):
    """The request was valid but the work failed: the message gives the reason and the remedy."""


class Refused(ValueError):
    """A request that cannot be met; its `problems` have been printed, so a command says no more."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def is_unusable_path(error: BaseException) -> bool:
    """Whether the error is about a path that the user named, not a failing disk or network."""
    return isinstance(error, OSError) and error.errno in UNUSABLE


def is_user_error(error: BaseException) -> bool:
    """Whether the user has to change the options, or the files that they name, before the command can work."""
    return isinstance(error, ValueError) or is_unusable_path(error)
