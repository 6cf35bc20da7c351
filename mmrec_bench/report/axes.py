"""Axes of plots: where values stand and which of them are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A straight axis.

    Attributes:
        low: value at `start`.
        high: value at `end`.
        start: place of `low` in the picture.
        end: place of `high`.
        ticks: values that are written.
        log: whether distances are ratios.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value stands, two decimals."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        share = (at - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 2)

    def label(self, value: float) -> str:
        """Return a tick as short as it can be told from its neighbours."""
        if self.log:
            return short(value)
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
        shown = f"{value:.{digits}f}"
        return f"{value:.{digits + 1}f}" if float(shown) != round(value, 10) else shown


def linear(values: Sequence[float], start: float, end: float, n: int = 5) -> Axis:
    """Return an axis with round ends around values."""
    low, high = min(values), max(values)
    if high - low < 1e-12:
        pad = abs(high) * 0.1 or 0.1
        low, high = low - pad, high + pad
    step = _round_step((high - low) / n)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 12) for i in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def logarithmic(values: Sequence[float], start: float, end: float) -> Axis:
    """Return an axis of ratios around positive values."""
    low, high = min(values) / 1.3, max(values) * 1.3
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside: list[float] = []
    for parts in ((1, 2, 5), (1, 3), (1,)):
        marks = [part * 10.0**decade for decade in decades for part in parts]
        inside = [mark for mark in marks if low <= mark <= high]
        if len(inside) <= 6:
            break
    if len(inside) < 2:
        inside = [tick for tick in linear((low, high), 0, 1, 6).ticks if low <= tick <= high]
    while len(inside) > 6:
        inside = inside[::2]
    return Axis(low, high, start, end, tuple(inside), log=True)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)


def short(value: float) -> str:
    """Return a number with three digits, thousands as k, millions as M."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            unit = 1e3 if sign == "k" else size
            return f"{value / unit:.3g}{sign}"
    return f"{value:.3g}"
