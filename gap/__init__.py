"""From budgets x tasks x seeds to scores, and from scores to the curve with its intervals."""

import runtime  # noqa: F401  (before torch is loaded: see there)
