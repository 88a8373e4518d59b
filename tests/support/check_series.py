"""Whether a pretraining run did its work: `python tests/support/check_series.py runs/pretrain`, part of `.ci/run`.

The annealed checkpoints' validation losses must fall from budget to budget, and every checkpoint must load by itself.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

from transformers import AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging


def check(run: Path) -> str:
    """What was found in one line; AssertionError with what is wrong."""
    entries = json.loads((run / "series.json").read_text(encoding="utf-8"))["checkpoints"]
    annealed = sorted((one for one in entries if one["kind"] == "annealed"), key=lambda one: one["budget_tokens"])
    losses = [one["validation_loss"] for one in annealed]
    assert len(losses) > 1, f"{run}: {len(losses)} annealed checkpoints, at least two are needed"
    assert all(one > following for one, following in pairwise(losses)), (
        f"{run}: the annealed validation losses do not fall from budget to budget: {losses}"
    )
    for entry in entries:
        _, report = AutoModelForMaskedLM.from_pretrained(
            run / entry["path"], local_files_only=True, output_loading_info=True
        )
        assert not report["missing_keys"], f"{entry['path']} lacks {report['missing_keys']}"
        longest = AutoTokenizer.from_pretrained(run / entry["path"], local_files_only=True).model_max_length
        assert longest < 100_000, f"{entry['path']}: the tokenizer does not say how long a text may be"
        card = (run / entry["path"] / "README.md").read_text(encoding="utf-8")
        assert all(part in card for part in ("## Data", "## Budget", "## Scores")), f"{entry['path']}/README.md: {card}"
    return f"{len(entries)} checkpoints load, annealed validation losses {', '.join(f'{loss:.3f}' for loss in losses)}"


if __name__ == "__main__":
    logging.disable_progress_bar()
    print(check(Path(sys.argv[1])))
