"""Drawings of points, bars and curves: what is drawn where; `svg` makes the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detrbench.report import labels
from detrbench.report.svg import INK, MUTED, PAPER, SERIES, Marks, draw_svg, lay_out, part_colour, series_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vPX*"


def marker(number: int) -> str:
    """The marker of a family's number: the palette's next round of colours has the next marker."""
    return MARKERS[(number + number // SERIES) % len(MARKERS)]


@dataclass(frozen=True)
class Point:
    """One point of a scatter: `row` is the table row it belongs to, `tip` what hovering says."""

    x: float
    y: float
    family: str
    row: str
    tip: str
    mark: str = ""
    y_low: float | None = None
    y_high: float | None = None
    x_low: float | None = None
    x_high: float | None = None
    ghost: bool = False


@dataclass(frozen=True)
class Bar:
    """One stacked bar: (part, value) from left to right; `ghost` is the published total, counted its own way."""

    label: str
    row: str
    pieces: tuple[tuple[str, float], ...]
    ghost: float | None = None


@dataclass(frozen=True)
class Range:
    """A few figures of one row on one axis, in a fixed order; None where there is no such figure."""

    label: str
    row: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Curve:
    """One line of a plot by epoch."""

    label: str
    family: str
    row: str
    x: tuple[float, ...]
    y: tuple[float, ...]


def scatter(
    name: str,
    points: list[Point],
    colours: Mapping[str, int],
    x_label: str,
    y_label: str,
    title: str,
    frontier: bool = False,
) -> str:
    """AP against a cost: measured points with their intervals, published ones as ghosts.

    Families are joined by lines; with `frontier` instead one line joins the points that none beats on both axes.
    """

    def draw(axes: Axes, marks: Marks) -> None:
        if frontier:
            best = unbeaten(points)
            xs, ys = [p.x for p in best], [p.y for p in best]
            axes.plot(xs, ys, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), drawstyle="steps-post", alpha=0.7)
        for ghost in (True, False):
            for family in dict.fromkeys(point.family for point in points):
                mine = sorted((p for p in points if p.family == family and p.ghost is ghost), key=lambda p: (p.x, p.y))
                _draw_family(axes, mine, colours[family], ghost, marks, joined=not frontier)
        axes.margins(0.1, 0.14)
        axes.set_xlabel(x_label)
        axes.set_ylabel(_short(y_label, 60))
        _write_marks(axes, points)

    return draw_svg(name, draw, title, (5.2, 3.5))


def stacked(name: str, bars: list[Bar], parts: list[str], unit: str, title: str) -> str:
    """Cost by part: a horizontal bar a row, its total at the end."""

    def draw(axes: Axes, marks: Marks) -> None:
        longest = max(max(sum(value for _, value in bar.pieces), bar.ghost or 0.0) for bar in bars)
        for y, bar in enumerate(bars):
            left = 0.0
            for part, value in bar.pieces:
                tip = f"{bar.label}, {part}: {labels.fixed(value, 1)} {unit}"
                colour = part_colour(parts.index(part))
                axes.barh(y, value, left=left, height=0.66, color=colour, gid=marks.add(bar.row, tip))
                left += value
            at = left
            if bar.ghost is not None:
                at = max(left, bar.ghost + 0.012 * longest if bar.ghost > left - 0.02 * longest else left)
                _draw_ghost(axes, bar, bar.ghost, y, marks, unit)
            axes.text(at + 0.012 * longest, y, labels.fixed(left, 1), va="center", fontsize=9)
        axes.set_yticks(range(len(bars)), [_short(bar.label) for bar in bars])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12 * longest)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(unit)

    return draw_svg(name, draw, title, (5.2, 0.8 + 0.28 * len(bars)))


def spreads(name: str, rows: list[Range], kinds: Mapping[str, str], x_label: str, title: str) -> str:
    """Figures of one kind each (`kinds`: name and marker) beside each other: a line a row."""

    def draw(axes: Axes, marks: Marks) -> None:
        for y, row in enumerate(rows):
            known = [value for value in row.values if value is not None]
            axes.plot([min(known), max(known)], [y, y], color=MUTED, linewidth=1.0, alpha=0.6)
            for (kind, shape), value in zip(kinds.items(), row.values, strict=True):
                if value is not None:
                    gid = marks.add(row.row, f"{row.label}, {kind}: {labels.fixed(value, 1)} AP")
                    colour = series_colour(list(kinds).index(kind))
                    axes.plot([value], [y], marker=shape, markersize=6, color=colour, linestyle="", gid=gid)
        axes.set_yticks(range(len(rows)), [_short(row.label) for row in rows])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.invert_yaxis()
        axes.margins(y=0.5 / len(rows))
        axes.set_xlabel(_short(x_label, 60))

    return draw_svg(name, draw, title, (5.2, 0.8 + 0.24 * len(rows)))


def _draw_ghost(axes: Axes, bar: Bar, total: float, y: int, marks: Marks, unit: str) -> None:
    tip = f"{bar.label}, published: {labels.printed(total)} {unit}"
    axes.plot(
        [total], [y], marker="D", markersize=5, markerfacecolor=PAPER, markeredgecolor=INK,
        markeredgewidth=1.1, linestyle="", gid=marks.add(bar.row, tip),
    )  # fmt: skip


def curves(name: str, lines: list[Curve], colours: Mapping[str, int], y_label: str, title: str) -> str:
    """A figure by epoch, each line named at its end."""

    def draw(axes: Axes, marks: Marks) -> None:
        for line in lines:
            last = f"{line.label}: {labels.fixed(line.y[-1], 1)} after epoch {labels.fixed(line.x[-1], 0)}"
            colour, same = (
                series_colour(colours[line.family]),
                [other for other in lines if other.family == line.family],
            )
            dashes = ["-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)), (0, (8, 2, 2, 2))][same.index(line) % 5]
            dot = "o" if len(line.x) < 4 else None
            gid = marks.add(line.row, last)
            axes.plot(line.x, line.y, color=colour, linestyle=dashes, linewidth=1.6, marker=dot, markersize=4, gid=gid)
        axes.margins(x=0.02, y=0.08)
        axes.set_xlabel("Epoch")
        axes.set_ylabel(_short(y_label, 60))
        _name_ends(axes, lines)

    return draw_svg(name, draw, title, (5.2, 3.5))


def unbeaten(points: list[Point]) -> list[Point]:
    """The points than which no other has both more AP and less cost, cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best


def _draw_family(axes: Axes, points: list[Point], number: int, ghost: bool, marks: Marks, joined: bool = True) -> None:
    if not points:
        return
    colour = series_colour(number)
    xs, ys = [p.x for p in points], [p.y for p in points]
    if joined:
        axes.plot(xs, ys, color=colour, linewidth=1.0, linestyle=":" if ghost else "-", alpha=0.55 if ghost else 0.8)
    for p in points:
        if p.y_low is not None and p.y_high is not None:
            axes.plot([p.x, p.x], [p.y_low, p.y_high], color=colour, linewidth=1.2, alpha=0.6)
        if p.x_low is not None and p.x_high is not None:
            axes.plot([p.x_low, p.x_high], [p.y, p.y], color=colour, linewidth=1.2, alpha=0.6)
        face = PAPER if ghost else colour
        axes.plot(
            [p.x], [p.y], marker=marker(number), markersize=6.5, markerfacecolor=face, markeredgecolor=colour,
            markeredgewidth=1.2, linestyle="", alpha=0.75 if ghost else 1.0, gid=marks.add(p.row, p.tip),
        )  # fmt: skip


def _write_marks(axes: Axes, points: list[Point]) -> None:
    """Writes each point's short mark beside it, leaving out those that would fall on another mark or point."""
    lay_out(axes.get_figure(root=True))
    centres = [axes.transData.transform((p.x, p.y)) for p in points]
    right = axes.bbox.x1
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in centres]
    for p, (x, y) in zip(points, centres, strict=True):
        text = _short(p.mark, 24)
        wide, high = 5.2 * len(text) + 2, 11
        for dx, dy in ((8, -12), (8, 3), (-8, 3), (-8, -12)):
            left, low = x + dx - (wide if dx < 0 else 0), y + dy
            box = (left, low, left + wide, low + high)
            if text and box[2] < right + 4 and not any(_touch(box, other) for other in taken):
                axes.annotate(
                    text, (p.x, p.y), (dx, dy), textcoords="offset pixels",
                    ha="left" if dx > 0 else "right", fontsize=9, color=MUTED,
                )  # fmt: skip
                taken.append(box)
                break


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether two boxes (left, bottom, right, top) share a point."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _name_ends(axes: Axes, lines: list[Curve]) -> None:
    """Names lines at their right end, pushed apart so that no two names touch."""
    lay_out(axes.get_figure(root=True))
    to_pixels, from_pixels = axes.transData.transform, axes.transData.inverted().transform
    ends = sorted(((to_pixels((line.x[-1], line.y[-1]))[1], line) for line in lines), key=lambda end: end[0])
    right, previous = max(line.x[-1] for line in lines), float("-inf")
    for height, line in ends:
        previous = max(height, previous + 12.5)
        y = from_pixels((0, previous))[1]
        axes.annotate(
            _short(line.label), (right, y), (6, 0), textcoords="offset pixels", va="center", fontsize=9,
            annotation_clip=False,
        )  # fmt: skip


def _short(text: str, most: int = 28) -> str:
    """A name as long as a drawing has room for; its whole length is in the table and on hover."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
