"""The exit status of a command, however it ends."""

from collections.abc import Callable, Sequence


def status_of(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """What `main` returns, or what it ends the process with: wrong options end it as they are parsed."""
    try:
        return main(argv)
    except SystemExit as ended:
        return int(ended.code or 0)
