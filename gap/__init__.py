"""The gap study: scores for budgets x tasks x seeds, the curve with its intervals, and the report."""

import runtime  # noqa: F401  (before torch is loaded: see there)
