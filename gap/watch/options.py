"""The options of `launch/watch.py`."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.options.declaration import OUTPUT, Options, option

PAGE = "page"  # heading of --help


@dataclass
class WatchOptions(Options):
    """Options of launch/watch.py."""

    host: str = option(
        "127.0.0.1",
        "address to listen on; with any but a loopback address, whoever reaches this machine can read the page",
        group=PAGE,
    )
    port: int = option(8765, "port to listen on; 0 takes any that is free", group=PAGE, at_least=0, at_most=65535)
    line: bool = option(False, "one line for each run in the terminal, refreshed, in place of the page", group=OUTPUT)
    once: bool = option(False, "print those lines once and end", group=OUTPUT)
    every: float = option(
        2.0, "seconds between two looks at the files", group=OUTPUT, at_least=0.2, at_most=3600.0, what="in seconds"
    )

    def contradictions(self) -> list[str]:
        """A host without a name."""
        return [] if self.host.strip() else ["--host '': name an address, such as 127.0.0.1"]
