"""Plots as SVG text. Colours come from the style sheet, so that they follow light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmrec_bench.report.axes import Axis, linear, logarithmic
from mmrec_bench.report.escaping import text

WIDTH = 460
N_COLOURS = 8
"""Series that have a colour of their own; the style sheet has as many."""

_LABELS = 186
_ROW = 22
_HEIGHT = 256


@dataclass(frozen=True)
class Mark:
    """One row of a board in a plot.

    Attributes:
        number: how the row is called in all plots of its board, from 1.
        label: its name.
        y: the value.
        low: lower end of its interval; None = not known.
        high: upper end.
        x: the other value of a scatter plot.
    """

    number: int
    label: str
    y: float
    low: float | None = None
    high: float | None = None
    x: float = 0.0


@dataclass(frozen=True)
class Series:
    """One row of a board over categories.

    Attributes:
        number: as in `Mark`.
        label: its name.
        values: a value a category; None = no case.
        errors: half the width of each 95 % interval; None = not known.
    """

    number: int
    label: str
    values: tuple[float | None, ...]
    errors: tuple[float | None, ...] = ()


def intervals(marks: Sequence[Mark], metric: str, best: int) -> str:
    """Draw a dot and a whisker a row; the best one's whisker shades the plot."""
    height = 34 + _ROW * len(marks)
    ends = [v for m in marks for v in (m.y, m.low, m.high) if v is not None]
    axis = linear(ends, _LABELS, WIDTH - 20)  # half a tick's words stand beyond it
    bottom = height - 30
    parts = [_grid(axis, 4, bottom, vertical=True)]
    for place, mark in enumerate(marks):
        y = 14 + _ROW * place
        own = " best" if mark.number == best else ""
        if mark.low is not None and mark.high is not None:
            left, right = axis.place(mark.low), axis.place(mark.high)
            if own:
                parts.append(
                    f'<rect class="band" x="{left}" y="4" width="{right - left:.2f}" '
                    f'height="{bottom - 4}"/>'
                )
            parts.append(f'<path class="whisker{own}" d="M{left} {y}H{right}"/>')
        shown = f"{mark.number}  {clip(mark.label, 23)}"
        parts.append(
            f'<g><title>{text(mark.label)}: {_interval(mark)}</title><text class="name{own}" x="0" '
            f'y="{y + 4}">{text(shown)}</text><circle class="dot{own}" cx="{axis.place(mark.y)}" '
            f'cy="{y}" r="4"/></g>'
        )
    return _svg(f"{metric} with 95 % intervals", height, parts)


def scatter(marks: Sequence[Mark], metric: str, across: str) -> str:
    """Draw accuracy against what it took, on an axis of ratios; numbers tell the rows."""
    xs = logarithmic([m.x for m in marks], 46, WIDTH - 14)
    ys = linear([m.y for m in marks], _HEIGHT - 38, 10)
    parts = [_grid(xs, 10, _HEIGHT - 38, vertical=True), _grid(ys, 46, WIDTH - 14, vertical=False)]
    taken = [(xs.place(m.x) - 5, ys.place(m.y) - 5, 10.0, 10.0) for m in marks]
    for mark in marks:
        x, y = xs.place(mark.x), ys.place(mark.y)
        at = _free_place(x, y, 7.0 * len(str(mark.number)), taken)
        parts.append(
            f"<g><title>{text(mark.label)}: {mark.y:.4f} at {mark.x:.4g}</title>"
            f'<circle class="dot best" cx="{x}" cy="{y}" r="4"/>'
            f'<text class="name best" x="{at[0]:.2f}" y="{at[1]:.2f}">{mark.number}</text></g>'
        )
    parts.append(_axis_title(across))
    return _svg(f"{metric} against {across}", _HEIGHT, parts)


def lines(
    series: Sequence[Series],
    categories: Sequence[str],
    title: str,
    across: str,
    counts: Sequence[int] = (),
    reference: float | None = None,
) -> str:
    """Draw values over categories, a line a row, whiskers where they are known.

    Args:
        series: rows.
        categories: names below the plot.
        title: for those who do not see it.
        across: what the categories are.
        counts: cases of each category, written below its name.
        reference: a level that is drawn as a dashed line.
    """
    width = (WIDTH - 66) / max(1, len(categories))
    spots = [56 + width * (i + 0.5) for i in range(len(categories))]
    ends = [e for s in series for e in _ends(s)] + ([] if reference is None else [reference])
    ys = linear([*ends, 0.0] if min(ends) < 0.1 else ends, _HEIGHT - 48, 10)
    parts = [_grid(ys, 46, WIDTH - 10, vertical=False)]
    step = max(1, -(-len(categories) // 12))
    for i, name in enumerate(categories):
        if i % step == 0:
            at = f'x="{spots[i]:.1f}" text-anchor="middle"'
            parts.append(f'<text class="tick" y="{_HEIGHT - 33}" {at}>{text(name)}</text>')
            if counts:
                below = f'<text class="count" y="{_HEIGHT - 20}" {at}>{counts[i]:,}</text>'
                parts.append(below)
    if reference is not None:
        level = ys.place(reference)
        parts.append(f'<path class="reference" d="M46 {level}H{WIDTH - 10}"/>')
    spread = min(width * 0.5, 40.0)
    for place, one in enumerate(series):
        shift = spread * ((place + 0.5) / len(series) - 0.5)
        parts.append(_line(one, [spot + shift for spot in spots], ys, place))
    parts.append(_axis_title(across))
    return _svg(title, _HEIGHT, parts)


def strip(
    value: float | None, low: float | None, high: float | None, ends: tuple[float, float]
) -> str:
    """Draw one interval as wide as a word; all strips of a board have the same ends."""
    if value is None or ends[1] <= ends[0]:
        return ""
    axis = Axis(ends[0], ends[1], 4, 92, ())
    whisker = ""
    if low is not None and high is not None:
        whisker = f'<path class="whisker" d="M{axis.place(low)} 8H{axis.place(high)}"/>'
    return (
        '<svg class="strip" viewBox="0 0 96 16" width="96" height="16" aria-hidden="true">'
        f'<path class="rail" d="M4 8H92"/>{whisker}'
        f'<circle class="dot" cx="{axis.place(value)}" cy="8" r="3"/></svg>'
    )


def clip(label: str, length: int) -> str:
    """Shorten a label in the middle: its beginning and its end tell it apart from others."""
    if len(label) <= length:
        return label
    head = length // 3
    return f"{label[:head]}…{label[head + 1 - length :]}"


def _line(one: Series, spots: Sequence[float], ys: Axis, place: int) -> str:
    known = [
        (x, v, i) for i, (x, v) in enumerate(zip(spots, one.values, strict=True)) if v is not None
    ]
    path = "L".join(f"{x:.1f} {ys.place(v)}" for x, v, _ in known)
    dots = []
    for x, value, i in known:
        error = one.errors[i] if one.errors else None
        if error is not None:
            top, bottom = ys.place(value + error), ys.place(value - error)
            dots.append(f'<path class="whisker" d="M{x:.1f} {top}V{bottom}"/>')
        dots.append(_marker(x, ys.place(value), place))
    colour = place % N_COLOURS + 1
    told = ", ".join("-" if v is None else f"{v:.4f}" for v in one.values)
    return (
        f'<g class="series s{colour}"><title>{text(one.label)}: {told}</title>'
        f'<path class="line" d="M{path}"/>{"".join(dots)}</g>'
    )


def _marker(x: float, y: float, place: int) -> str:
    """Give each series a shape too: colour alone tells nobody who does not see it."""
    shapes = (
        f'<circle class="dot" cx="{x:.1f}" cy="{y}" r="3.5"/>',
        f'<rect class="dot" x="{x - 3.2:.1f}" y="{y - 3.2:.1f}" width="6.4" height="6.4"/>',
        f'<path class="dot" d="M{x:.1f} {y - 4.4:.1f}l4.2 7.4h-8.4z"/>',
        f'<path class="dot" d="M{x:.1f} {y - 4.6:.1f}l4.6 4.6l-4.6 4.6l-4.6-4.6z"/>',
    )
    return shapes[place % len(shapes)]


def key(place: int) -> str:
    """Draw the marker of a series for a legend."""
    return (
        f'<svg class="key series s{place % N_COLOURS + 1}" viewBox="0 0 22 12" width="22" '
        f'height="12" aria-hidden="true"><path class="line" d="M0 6H22"/>'
        f"{_marker(11, 6, place)}</svg>"
    )


def _ends(one: Series) -> list[float]:
    errors = one.errors or (None,) * len(one.values)
    pairs = [(v, e or 0.0) for v, e in zip(one.values, errors, strict=True) if v is not None]
    return [end for v, e in pairs for end in (v - e, v + e)]


def _free_place(
    x: float, y: float, width: float, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float]:
    """Return where a number beside a dot covers nothing, if there is such a place; claim it."""
    tries = [(7, 4), (-7 - width, 4), (-width / 2, -8), (-width / 2, 17), (7, -6), (7, 14)]
    tries += [(-7 - width, -6), (-7 - width, 14), (-width / 2, -19), (-width / 2, 28)]
    tries += [(7 + step * width, dy) for step in (0, 1, 2) for dy in (4, 16, 28, 40, -8, -20)]
    boxes = [(x + dx, y + dy - 10, width, 12.0) for dx, dy in tries]
    inside = [box for box in boxes if box[0] > 46 and box[0] + width < WIDTH and box[1] > 0]
    free = [box for box in inside if not any(_meet(box, other) for other in taken)]
    box = (free or inside or boxes)[0]
    taken.append(box)
    return box[0], box[1] + 10


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def _grid(axis: Axis, start: float, end: float, *, vertical: bool) -> str:
    parts = []
    for tick in axis.ticks:
        at = axis.place(tick)
        path = f"M{at} {start}V{end}" if vertical else f"M{start} {at}H{end}"
        where = (
            f'x="{at}" y="{end + 15}" text-anchor="middle"'
            if vertical
            else f'x="{start - 6}" y="{at + 4}" text-anchor="end"'
        )
        parts.append(
            f'<path class="grid" d="{path}"/><text class="tick" {where}>{axis.label(tick)}</text>'
        )
    return "".join(parts)


def _axis_title(words: str) -> str:
    middle = (46 + WIDTH - 10) / 2
    at = f'x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle"'
    return f'<text class="axis" {at}>{text(words)}</text>'


def _interval(mark: Mark) -> str:
    if mark.low is None or mark.high is None:
        return f"{mark.y:.4f}"
    return f"{mark.y:.4f} [{mark.low:.4f}, {mark.high:.4f}]"


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{text(title)}">'
        f"{''.join(parts)}</svg>"
    )
