"""Drawings of points, bars and curves: what is drawn where; `svg` makes the file."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from detrbench.report import labels
from detrbench.report.svg import INK, MUTED, PAPER, Marks, draw_svg, lay_out, part_colour, series_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    """One line of a plot by epoch; `colour` is the number of its method."""

    label: str
    colour: int
    row: str
    x: tuple[float, ...]
    y: tuple[float, ...]


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
                    axes.plot([value], [y], marker=shape, markersize=6, color=INK, linestyle="", gid=gid)
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


def curves(name: str, lines: list[Curve], y_label: str, title: str) -> str:
    """A figure by epoch, each line named at its end."""

    def draw(axes: Axes, marks: Marks) -> None:
        for line in lines:
            last = f"{line.label}: {labels.fixed(line.y[-1], 1)} after epoch {labels.fixed(line.x[-1], 0)}"
            colour = series_colour(line.colour)
            same = [other for other in lines if other.colour == line.colour]
            dashes = ["-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)), (0, (8, 2, 2, 2))][same.index(line) % 5]
            dot = "o" if len(line.x) < 4 else None
            gid = marks.add(line.row, last)
            axes.plot(line.x, line.y, color=colour, linestyle=dashes, linewidth=1.6, marker=dot, markersize=4, gid=gid)
        axes.margins(x=0.02, y=0.08)
        axes.set_xlabel("Epoch")
        axes.set_ylabel(_short(y_label, 60))
        _name_ends(axes, lines)

    return draw_svg(name, draw, title, (5.2, 3.5))


def across(name: str, lines: list[Curve], conditions: Sequence[str], y_label: str, title: str) -> str:
    """A ratio under several conditions, whose numbers are the lines' x."""

    def draw(axes: Axes, marks: Marks) -> None:
        for line in lines:
            colour = series_colour(line.colour)
            axes.plot(line.x, line.y, color=colour, linewidth=1.2, alpha=0.6)
            for x, y in zip(line.x, line.y, strict=True):
                tip = f"{line.label}, {conditions[round(x)]}: {labels.fixed(y, 2)} times"
                axes.plot([x], [y], marker="o", markersize=5, color=colour, linestyle="", gid=marks.add(line.row, tip))
        axes.set_xticks(range(len(conditions)), [textwrap.fill(each, 8) for each in conditions])
        axes.margins(x=0.04, y=0.08)
        axes.set_ylabel(_short(y_label, 60))
        _name_ends(axes, lines)

    return draw_svg(name, draw, title, (6.9, 3.6))


def _name_ends(axes: Axes, lines: list[Curve]) -> None:
    """Names lines at their right end, pushed apart so that no two names touch."""
    lay_out(cast("Figure", axes.figure))
    to_pixels, from_pixels = axes.transData.transform, axes.transData.inverted().transform
    ends = sorted(((to_pixels((line.x[-1], line.y[-1]))[1], line) for line in lines), key=lambda end: end[0])
    right = max(line.x[-1] for line in lines)
    heights: list[float] = []
    for height, _ in ends:
        heights.append(max(height, heights[-1] + 12.5) if heights else height)
    above = axes.bbox.y1
    for i in reversed(range(len(heights))):  # what was pushed out at the top pushes down again
        heights[i] = above = min(heights[i], above)
        above -= 12.5
    for height, (_, line) in zip(heights, ends, strict=True):
        y = from_pixels((0, height))[1]
        axes.annotate(
            _short(line.label), (right, y), (6, 0), textcoords="offset pixels", va="center", fontsize=9,
            annotation_clip=False,
        )  # fmt: skip


def _short(text: str, most: int = 28) -> str:
    """A name as long as a drawing has room for; its whole length is in the table and on hover."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
