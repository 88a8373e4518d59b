"""The options of `launch/report.py`; `launch/gap.py` has most of them too."""

from __future__ import annotations

from dataclasses import dataclass

from gap.analysis.tables.costs import Prices
from pretraining.plan.options import PretrainingOptions
from runtime.options.declaration import OUTPUT, Options, option, option_as_in

ANALYSIS, COSTS = "analysis", "costs"  # headings of --help


@dataclass
class ReportOptions(Options):
    """Options of launch/report.py."""

    draws: int = option(10_000, "bootstrap draws", group=ANALYSIS, at_least=100)
    confidence: float | None = option(
        None,
        "confidence of the intervals; default: 0.95, or what earlier looks at the study leave of it",
        group=ANALYSIS,
        above=0,
        below=1,
        what="a share such as 0.95",
    )
    seed: int = option(0, "seed of the draws", group=ANALYSIS, at_least=0)
    resolve: float | None = option(
        None,
        "score difference to plan seeds for, such as 0.02",
        group=ANALYSIS,
        above=0,
        below=1,
        what="a difference in score such as 0.02",
    )
    price_per_hour: float | None = option(None, "price of a device-hour", group=COSTS, at_least=0)
    currency: str | None = option(None, "currency of the price", group=COSTS)
    devices: int | None = option(None, "devices that the series was pretrained on", group=COSTS, at_least=1)
    output_dir: str | None = option_as_in(
        None, PretrainingOptions, "output_dir", "where to write; default for one run: its own folder"
    )

    publish: str | None = option(
        None,
        "also write a small copy of the run into this folder, to keep with a project: records, results.md, pictures",
        group=OUTPUT,
    )

    results_page: str | None = option(
        None,
        "instead, write this page about all published studies in the folder that is named",
        group=OUTPUT,
    )

    def prices(self, own: Prices) -> Prices:
        """A run's prices, replaced by those given as options."""
        return Prices(
            own.per_device_hour if self.price_per_hour is None else self.price_per_hour,
            own.currency if self.currency is None else self.currency,
            own.devices if self.devices is None else self.devices,
        )
