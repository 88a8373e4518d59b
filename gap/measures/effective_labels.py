"""The value of pretraining in labelled examples: effective data transferred (Hernandez et al. 2021, section 2).

The effective labels are those that a model from scratch would need to reach the pretrained model's score with n labels;
those beyond n are what pretraining transferred. They are read off the monotone curve of scratch over labels, never
beyond the available labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gap.intervals.variance import Floats
from gap.measures.curve import MonotoneCurve


def effective_labels(label_counts: Sequence[float], scratch_scores: Floats, pretrained_scores: Floats) -> Floats:
    """log10 of the labels [D] at which scratch reaches the pretrained score.

    label_counts [L] increasing, scratch_scores [D, L], pretrained_scores [D]. -inf: with the fewest labels or fewer;
    +inf: not with all of them.
    """
    return MonotoneCurve.fit(label_counts, scratch_scores).crossing(pretrained_scores)


def share_text(share: float) -> str:
    """A share of the labels as text: `1/8` for 0.125, `0.3` for a share that is not one over a whole number."""
    parts = 1 / share
    return f"1/{parts:g}" if math.isclose(parts, round(parts)) else f"{share:g}"
