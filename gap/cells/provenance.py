"""Provenance of a study for the end of its report: dates, devices, options and code."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from gap.cells.job_list import JobList
from gap.cells.store import Cell
from pretraining.checkpoints.origin import read_run

CPU_FACTS = Path("/proc/cpuinfo")
DIGESTS = ("shards", "tokenizer")  # of an identity: not options, and too long to read
SHOWN_DIGITS = 16


def device_text(device: torch.device) -> str:
    """The device's name; for a CPU, with the number of threads that a cell uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}"


def now_text() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def made_by(jobs: JobList, series: Sequence[Path]) -> dict[str, str]:
    """The options of the cells and of each pretraining run next to its series.json, and a digest of the code."""
    reading, rows = asdict(jobs.options.reading), asdict(jobs.options.rows)
    more = {name: value for name, value in asdict(jobs.options).items() if name not in ("reading", "rows")}
    made = {"fine-tuning": _options_text({**reading, **rows, **more})}
    for path in series:
        run = (path if path.is_dir() else path.parent) / "run.json"
        if run.is_file() and (identity := read_run(run).identity):
            kept = {name: value for name, value in identity.items() if name not in DIGESTS}
            made[f"pretraining, seed {identity.get('seed')}"] = _options_text(kept)
    return {**made, "sources (sha256)": jobs.code[:SHOWN_DIGITS]}


def made_of(cells: Sequence[Cell]) -> dict[str, str]:
    """Dates and devices of the cells' training, from their lines; lines of older versions lack them."""
    times = sorted(str(cell.details["finished"]) for cell in cells if cell.details.get("finished"))
    devices = Counter(f"{cell.details['device']}, {precision_of(cell)}" for cell in cells if cell.details.get("device"))
    made = {}
    if times:
        made["cells finished"] = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
    if devices:
        made["cells trained on"] = "; ".join(f"{name} ({number})" for name, number in devices.most_common())
    return made


def precision_notes(cells: Sequence[Cell]) -> list[str]:
    """A warning if cells of one study were trained in different precisions."""
    precisions = sorted({precision_of(cell) for cell in cells if precision_of(cell)})
    if len(precisions) < 2:
        return []
    return [
        f"Cells were trained in {' and '.join(precisions)}: differences between them may be due to the precision; "
        "give --bf16 true or false, and run those of the other precision again."
    ]


def precision_of(cell: Cell) -> str:
    """bf16 or fp32, empty if the line does not record it."""
    return str(cell.details.get("precision", ""))


def _options_text(options: Mapping[str, Any]) -> str:
    """name=value of every option that is set."""
    return ", ".join(f"{name}={value}" for name, value in options.items() if value is not None)


def _processor() -> str:
    if CPU_FACTS.is_file():
        for line in CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
