"""Token classification: `torchrun finetuning/token_classification.py` (or python, or deepspeed): tags, entities.

    python finetuning/token_classification.py --model_name_or_path DIR --train_file a.conllu --validation_file b.conllu
    python finetuning/token_classification.py --model_name_or_path DIR --train_file a.conll --test_file c.conll

CoNLL-U (.conllu), columns with the word first and the tag last (.conll, .bio), rows with the lists "tokens" and "tags"
(.jsonl, .parquet), `datasets`. With no option it runs on the embedded small world from the newest checkpoint of the
default pretraining run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetuning.recipes.options.token_classification import TokenOptions
from finetuning.run.replaced_options import replaced_option
from runtime.options.command_line import parse_options


def main(argv: Sequence[str] | None = None) -> int:
    """Fine-tune and score; returns the exit status."""
    options = parse_options(TokenOptions, argv, description=__doc__, replaced=replaced_option)
    from finetuning import finetune
    from finetuning.run.command import output_directory, status_of  # loads torch, which --help does not need

    return status_of(lambda: finetune(options), output_directory(options, "token_classification"))


if __name__ == "__main__":
    sys.exit(main())
