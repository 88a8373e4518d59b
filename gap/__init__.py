"""The gap study: scores for budgets x tasks x seeds, the curve with its intervals, and the report.

from gap import measure

study = measure(series="runs/mine/series.json", tasks=["qa:train.json"], output_dir="runs/gap")
study.answer, study.report
study  # in a notebook: the answers and the curves
"""

import runtime  # noqa: F401  (before torch is loaded: see there)
from runtime.lazy_names import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gap.study.api import GapKeywords, Study, measure
    from gap.study.options import GapOptions

__all__ = ["GapKeywords", "GapOptions", "Study", "measure"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "GapKeywords": "gap.study.api",
        "GapOptions": "gap.study.options",
        "Study": "gap.study.api",
        "measure": "gap.study.api",
    },
)
