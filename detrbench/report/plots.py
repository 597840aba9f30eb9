"""Figures as inline SVG: matplotlib draws, the page's style sheet colours.

Every colour is drawn as a placeholder that becomes a CSS variable, so one drawing serves light, dark and print. Text
stays text. Points carry a <title>, which browsers show on hover and the page's script shows more finely. Equal
figures give equal bytes: ids are hashed with a fixed salt, no date, no creator.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from detrbench.report import labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = 8  # colours in the palette; a ninth family takes the first again, with another marker
MARKERS = "osD^vPX*"

_INK, _MUTED, _RULE, _PAPER = "#010101", "#010102", "#010103", "#010104"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _RULE: "--rule", _PAPER: "--paper"}
_VARIABLES |= {f"#0200{i:02x}": f"--series-{i + 1}" for i in range(SERIES)}
_VARIABLES |= {f"#0300{i:02x}": f"--part-{i + 1}" for i in range(SERIES)}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.5,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "text.color": _INK,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "path.simplify": False,
    "text.parse_math": False,
}


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
    """One stacked bar: (part, value, tip) from left to right."""

    label: str
    row: str
    pieces: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Curve:
    """One line of a plot by epoch."""

    label: str
    family: str
    row: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass
class _Marks:
    """What the drawing's group ids stand for, filled while drawing and written into the SVG afterwards."""

    salt: str
    titles: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, row: str, tip: str) -> str:
        name = f"{self.salt}-{len(self.titles)}"
        self.titles[name] = (row, tip)
        return name


def scatter(name: str, points: list[Point], colours: Mapping[str, int], x_label: str, y_label: str, title: str) -> str:
    """AP against a cost: families joined by lines, measured points with their intervals, published ones as ghosts."""

    def draw(axes: Axes, marks: _Marks) -> None:
        for ghost in (True, False):
            for family in dict.fromkeys(point.family for point in points):
                mine = sorted((p for p in points if p.family == family and p.ghost is ghost), key=lambda p: (p.x, p.y))
                _draw_family(axes, mine, colours[family], ghost, marks)
        axes.margins(0.1, 0.14)
        axes.set_xlabel(x_label)
        axes.set_ylabel(_short(y_label, 60))
        _write_marks(axes, points)

    return _svg(name, draw, title, (5.2, 3.5))


def stacked(name: str, bars: list[Bar], parts: list[str], unit: str, title: str) -> str:
    """Cost by part: a horizontal bar a row, its total at the end."""

    def draw(axes: Axes, marks: _Marks) -> None:
        longest = max(sum(value for _, value in bar.pieces) for bar in bars)
        for y, bar in enumerate(bars):
            left = 0.0
            for part, value in bar.pieces:
                tip = f"{bar.label}, {part}: {labels.fixed(value, 1)} {unit}"
                colour = f"#0300{parts.index(part) % SERIES:02x}"
                axes.barh(y, value, left=left, height=0.66, color=colour, gid=marks.add(bar.row, tip))
                left += value
            axes.text(left + 0.012 * longest, y, labels.fixed(left, 1), va="center", fontsize=9)
        axes.set_yticks(range(len(bars)), [_short(bar.label) for bar in bars])
        axes.tick_params(axis="y", length=0, labelcolor=_INK)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.1 * longest)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(unit)

    return _svg(name, draw, title, (5.2, 0.8 + 0.28 * len(bars)))


def curves(name: str, lines: list[Curve], colours: Mapping[str, int], y_label: str, title: str) -> str:
    """A figure by epoch, each line named at its end."""

    def draw(axes: Axes, marks: _Marks) -> None:
        for line in lines:
            last = f"{line.label}: {labels.fixed(line.y[-1], 1)} after epoch {labels.fixed(line.x[-1], 0)}"
            colour, same = _series(colours[line.family]), [other for other in lines if other.family == line.family]
            dashes = ["-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)), (0, (8, 2, 2, 2))][same.index(line) % 5]
            axes.plot(line.x, line.y, color=colour, linestyle=dashes, linewidth=1.6, gid=marks.add(line.row, last))
        axes.margins(x=0.02, y=0.08)
        axes.set_xlabel("Epoch")
        axes.set_ylabel(_short(y_label, 60))
        _name_ends(axes, lines)

    return _svg(name, draw, title, (5.2, 3.5))


def _draw_family(axes: Axes, points: list[Point], number: int, ghost: bool, marks: _Marks) -> None:
    if not points:
        return
    colour, marker = _series(number), MARKERS[number % len(MARKERS)]
    xs, ys = [p.x for p in points], [p.y for p in points]
    axes.plot(xs, ys, color=colour, linewidth=1.0, linestyle=":" if ghost else "-", alpha=0.55 if ghost else 0.8)
    for p in points:
        if p.y_low is not None and p.y_high is not None:
            axes.plot([p.x, p.x], [p.y_low, p.y_high], color=colour, linewidth=1.2, alpha=0.6)
        if p.x_low is not None and p.x_high is not None:
            axes.plot([p.x_low, p.x_high], [p.y, p.y], color=colour, linewidth=1.2, alpha=0.6)
        face = _PAPER if ghost else colour
        axes.plot(
            [p.x], [p.y], marker=marker, markersize=6.5, markerfacecolor=face, markeredgecolor=colour,
            markeredgewidth=1.2, linestyle="", alpha=0.75 if ghost else 1.0, gid=marks.add(p.row, p.tip),
        )  # fmt: skip


def _series(number: int) -> str:
    return f"#0200{number % SERIES:02x}"


def _write_marks(axes: Axes, points: list[Point]) -> None:
    """Writes each point's short mark beside it, leaving out those that would fall on another mark or point."""
    axes.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    to_pixels = axes.transData.transform
    centres = [to_pixels((p.x, p.y)) for p in points]
    taken: list[tuple[float, float]] = []
    for p, (x, y) in zip(points, centres, strict=True):
        if not p.mark:
            continue
        for dx, dy in ((7, -12), (7, 4), (-7, 4), (-7, -12)):
            at = (x + (dx if dx > 0 else dx - 14), y + dy)
            near_mark = any(abs(at[0] - u) < 20 and abs(at[1] - v) < 11 for u, v in taken)
            near_point = any(-6 < u - at[0] < 20 and -6 < v - at[1] < 14 for u, v in centres if (u, v) != (x, y))
            if not near_mark and not near_point:
                axes.annotate(
                    _short(p.mark, 8), (p.x, p.y), (dx, dy), textcoords="offset pixels",
                    ha="left" if dx > 0 else "right", fontsize=9, color=_MUTED,
                )  # fmt: skip
                taken.append(at)
                break


def _name_ends(axes: Axes, lines: list[Curve]) -> None:
    """Names lines at their right end, pushed apart so that no two names touch."""
    axes.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
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


def _svg(name: str, draw: Callable[[Axes, _Marks], None], title: str, size: tuple[float, float]) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    marks = _Marks(re.sub(r"[^A-Za-z0-9-]", "-", name))
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure: Figure = Figure(figsize=size, dpi=72, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        draw(axes, marks)
        buffer = io.StringIO()
        nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return _finish(buffer.getvalue(), title, marks)


def _finish(svg: str, title: str, marks: _Marks) -> str:
    """Cuts the XML head, puts colours and fonts under the page's style, names the drawing and its points."""
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    for name, (row, tip) in marks.titles.items():
        named = f'<g class="point" data-row="{escape(row)}"><title>{escape(tip)}</title>'
        svg = svg.replace(f'<g id="{name}">', named, 1)
    svg = re.sub(r"<[^>]*>", lambda tag: _restyle(tag[0]), svg)
    svg = svg.replace("<svg ", f'<svg class="plot" role="img" aria-label="{escape(title)}" ', 1)
    return re.sub(r"\s*\n\s*", "\n", svg).strip() + "\n"


def _restyle(tag: str) -> str:
    """One tag: colours as variables, the page's font, short numbers, no ids that would repeat in a page."""
    if tag.startswith("<svg"):
        box = re.search(r'viewBox="[^"]*"', tag)
        return f"<svg {box[0] if box else ''}>"
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag.replace("xlink:href", "href"))
    tag = re.sub(r"font: (?:[\w-]+ )*([\d.]+px) [^;\"]*", r"font-size: \1", tag)
    tag = re.sub(r"font-family: [^;\"]*(; )?", "", tag)
    tag = re.sub(r"(?<=: )#0[123]\w{4}", lambda colour: f"var({_VARIABLES.get(colour[0], '--ink')})", tag)
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
