"""Multiple choice: `torchrun finetuning/multiple_choice.py` (or python, or deepspeed), and the two-stage chain.

SWAG-like endings, C3, DREAM, CommonsenseQA and two-stage files. With no option it runs on the embedded small world from
the newest checkpoint of the default pretraining run. With --chain true extractive QA answers each two-stage question in
its chosen paragraph, and the answers are in one CSV.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetuning.recipes.options.multiple_choice import MultipleChoiceOptions
from finetuning.run.replaced_options import replaced_option
from runtime.options.command_line import parse_options


def main(argv: Sequence[str] | None = None) -> int:
    """Fine-tune and score; returns the exit status."""
    options = parse_options(MultipleChoiceOptions, argv, description=__doc__, replaced=replaced_option)
    from finetuning import finetune
    from finetuning.run.command import output_directory, status_of  # loads torch, which --help does not need

    return status_of(
        lambda: finetune(options), output_directory(options, "chain" if options.chain else "multiple_choice")
    )


if __name__ == "__main__":
    sys.exit(main())
