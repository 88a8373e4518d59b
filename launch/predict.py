"""Predict on new data with a fine-tuned model of any recipe, alone or under torchrun:

    python launch/predict.py --model_name_or_path runs/finetuning/qa/best --test_file new.json --output_dir runs/new

The model's folder stores its recipe, the form of its rows and its classes. Predictions go to --output_dir as that
recipe writes them, by example id; if the file has answers, the scores are printed too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetuning.recipes.options.prediction import PredictionOptions
from runtime.options.command_line import parse_options


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and predict; returns the exit status."""
    options = parse_options(PredictionOptions, argv, description=__doc__)
    from finetuning import predict
    from finetuning.run.command import status_of  # loads torch, which --help does not need

    return status_of(lambda: predict(options), Path(options.output_dir))


if __name__ == "__main__":
    sys.exit(main())
