"""How `--help` looks: the command's description as it is written, and defaults that say something."""

from __future__ import annotations

import argparse

USAGE = "%(prog)s ...        (--help shows examples and all options)"  # not all of them above an error


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Descriptions keep their lines, so that the commands in them can be copied; "(default: None)" is left out."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default in ((), []):
            return action.help
        return super()._get_help_string(action)
