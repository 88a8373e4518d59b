"""Numbers, sizes and times as short text."""

from __future__ import annotations

import math

SIZES = ("bytes", "kB", "MB", "GB", "TB", "PB")
LARGE = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(value: float) -> str:
    """12345678 -> `12.3 M`; below a thousand as it is."""
    for size, prefix in LARGE:
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g}"


def size(num_bytes: float) -> str:
    """1234567 -> `1.2 MB`."""
    if num_bytes < 1000:
        return f"{num_bytes:.0f} bytes"
    power = min(len(SIZES) - 1, int(math.log10(num_bytes) / 3 + 1e-9))
    return f"{num_bytes / 1000**power:.3g} {SIZES[power]}"


def duration(seconds: float) -> str:
    """A time in the two largest units that it fills: `3 d 4 h`, `2 h 05 min`, `4 min 10 s`, `7 s`."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days >= 100:
        return f"{days:,} d"
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {whole % 60:02} s" if minutes else f"{whole} s"


def ago(seconds: float) -> str:
    """How long ago, in the largest unit alone."""
    whole = max(0, round(seconds))
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if whole >= length:
            return f"{whole // length} {unit} ago"
    return "just now" if whole < 20 else f"{whole} s ago"


def rate(value: float) -> str:
    """A learning rate: `0.002`, `3.2e-05`."""
    return f"{value:.3g}"
