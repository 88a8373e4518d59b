"""GLUE: `torchrun finetuning/glue.py --task_name rte --data_dir GLUE` (or python, or deepspeed).

One task, several, or all; from the official TSV files or from `datasets`. Writes a table with scores, seconds and
epochs, and test predictions in the submission format. RTE, MRPC and STS-B start from MNLI only with --mnli_checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetuning.recipes.options.glue import GlueOptions
from finetuning.run.replaced_options import replaced_option
from runtime.options.command_line import parse_options


def main(argv: Sequence[str] | None = None) -> int:
    """Fine-tune and score; returns the exit status."""
    options = parse_options(GlueOptions, argv, description=__doc__, replaced=replaced_option)
    from finetuning import finetune
    from finetuning.run.command import output_directory, status_of  # loads torch, which --help does not need

    return status_of(lambda: finetune(options), output_directory(options, "glue"))


if __name__ == "__main__":
    sys.exit(main())
