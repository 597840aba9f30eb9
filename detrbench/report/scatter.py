"""How a chart of `charts` is drawn: points, curves, steps, and labels that a library places so that none overlaps."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from detrbench.report import wording
from detrbench.report.charts import Chart
from detrbench.report.identity import METHODS, STAR
from detrbench.report.marks import COSTS, Mark
from detrbench.report.svg import INK, MUTED, PAPER, Marks, draw_svg, lay_out, save, series_colour

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, NARROW = (15.28, 7.78), (8.4, 5.2)  # inches of 72 pixels
# Inches: one column of a two-column paper, and the whole width of its text.
WIDTHS = {"column": (3.35, 2.6), "page": (6.9, 3.9)}


def drawing(chart: Chart) -> str:
    """The chart as an SVG element of a page."""

    def draw(axes: Axes, marks: Marks) -> None:
        _draw(axes, chart, marks, 1.4 if chart.wide else 1.0)

    told = "; ".join(wording.tip(mark, chart.x, chart.y) for mark in chart.shown[:60])
    return draw_svg(chart.key, draw, f"{chart.title}. {chart.sentence} {told}", WIDE if chart.wide else NARROW)


def write(chart: Chart, path: Path, width: str) -> None:
    """The chart as a file for a paper, in the format of the path's suffix.

    Args:
        chart: what is drawn.
        path: ends in one of `svg.FILES`.
        width: a key of WIDTHS.

    Raises:
        EnvironmentLacking: pgf without a LaTeX to measure text with.
    """

    def draw(axes: Axes, marks: Marks) -> None:
        _key(axes, chart, 0.72)  # a page has its legend beside the drawing
        _draw(axes, chart, marks, 0.72)

    save(draw, path, WIDTHS[width])


def _key(axes: Axes, chart: Chart, scale: float) -> None:
    """Methods by colour and bases by shape, above the axes."""
    shown = chart.shown
    looks = [(name, series_colour(METHODS.index(name)), "o", True) for name in wording.families(shown)]
    looks += [(f"on {base}", INK, shape, False) for base, shape in wording.bases(shown).items()]
    for name, colour, shape, filled in looks:
        face = colour if filled else PAPER
        axes.plot([], [], marker=shape, markersize=4.5 * scale * 1.4, markerfacecolor=face, markeredgecolor=colour,
                  linestyle="", label=name)  # fmt: skip
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=8 * scale, frameon=False, handletextpad=0.1,
        columnspacing=1.0, borderaxespad=0.0,
    )  # fmt: skip


def _draw(axes: Axes, chart: Chart, marks: Marks, scale: float) -> None:
    """Everything; `scale` is of letters, lines and marks against those of a chart beside a table."""
    lines = [*_steps(axes, chart, marks, scale), *_curves(axes, chart, marks, scale)]
    for mark in sorted(chart.shown, key=lambda m: m.measured):
        _point(axes, chart, mark, marks, scale)
        lines += _spans(chart, mark)
    axes.margins(0.08, 0.12)
    axes.set_xlabel(COSTS[chart.x].label, fontsize=9.5 * scale)
    axes.set_ylabel(chart.y_label, fontsize=9.5 * scale)
    axes.tick_params(labelsize=9.5 * scale)
    _labels(axes, chart, marks, lines, scale)


def _curves(axes: Axes, chart: Chart, marks: Marks, scale: float) -> list[tuple[list[float], list[float]]]:
    """Lines through the points of each declared sweep; returns where they run."""
    groups: dict[tuple[str, bool], list[Mark]] = {}
    for mark in chart.shown:
        if mark.curve:
            groups.setdefault((mark.curve, mark.measured), []).append(mark)
    drawn = []
    for mine in groups.values():
        mine.sort(key=lambda mark: (mark.at or 0.0, mark.x[chart.x]))
        xs, ys = [m.x[chart.x] for m in mine], [m.y[chart.y] for m in mine]
        family = mine[0].identity.family
        axes.plot(xs, ys, color=series_colour(mine[0].identity.colour), linewidth=1.5 * scale,
                  solid_capstyle="round", gid=marks.tag("curve", method=family))  # fmt: skip
        drawn.append((xs, ys))
    return drawn


def _steps(axes: Axes, chart: Chart, marks: Marks, scale: float) -> list[tuple[list[float], list[float]]]:
    """For each length of training the dashed frontier; returns where they run."""
    if not chart.wide:
        return []
    right = _right(chart)
    drawn = []
    for epochs, best in wording.lengths(chart.shown, chart.x, chart.y):
        xs, ys = [m.x[chart.x] for m in best], [m.y[chart.y] for m in best]
        xs, ys = [*xs, right], [*ys, ys[-1]]
        axes.plot(xs, ys, color=MUTED, linewidth=1.0 * scale, linestyle=(0, (4, 3)), drawstyle="steps-post",
                  alpha=0.75, zorder=1, gid=marks.tag("steps", epochs=epochs))  # fmt: skip
        drawn.append(_stepped(xs, ys))
    return drawn


def _right(chart: Chart) -> float:
    """Where the frontiers end: a little beyond the last point."""
    costs = [mark.x[chart.x] for mark in chart.shown]
    return max(costs) + 0.04 * (max(costs) - min(costs))


def _stepped(xs: list[float], ys: list[float]) -> tuple[list[float], list[float]]:
    """The corners of a line that goes right before it goes up."""
    across, upwards = [xs[0]], [ys[0]]
    for x, y in zip(xs[1:], ys[1:], strict=True):
        across += [x, x]
        upwards += [upwards[-1], y]
    return across, upwards


def _spans(chart: Chart, mark: Mark) -> list[tuple[list[float], list[float]]]:
    """Where the lines of a point's intervals run."""
    x, y = mark.x[chart.x], mark.y[chart.y]
    found = [([x, x], list(mark.spans[chart.y]))] if chart.y in mark.spans else []
    return found + ([(list(mark.spans[chart.x]), [y, y])] if chart.x in mark.spans else [])


def _point(axes: Axes, chart: Chart, mark: Mark, marks: Marks, scale: float) -> None:
    colour, x, y = series_colour(mark.identity.colour), mark.x[chart.x], mark.y[chart.y]
    for across, upwards in _spans(chart, mark):
        axes.plot(across, upwards, color=colour, linewidth=1.2 * scale, alpha=0.6)
    size = 6.5 * scale * (1.6 if mark.identity.marker == STAR else 1.0)
    face = colour if mark.measured else PAPER
    gid = marks.add(mark.row, wording.tip(mark, chart.x, chart.y), method=mark.identity.family)
    axes.plot(
        [x], [y], marker=mark.identity.marker, markersize=size, markerfacecolor=face, markeredgecolor=colour,
        markeredgewidth=1.4 * scale, linestyle="", zorder=3, gid=gid,
    )  # fmt: skip


def _lengths(chart: Chart) -> list[tuple[float, float, str, str, str]]:
    """Labels of the frontiers, each at the middle of its longest step: x, y, text, colour, method."""
    found = []
    for epochs, best in wording.lengths(chart.shown, chart.x, chart.y):
        starts = [mark.x[chart.x] for mark in best]
        ends = [*starts[1:], _right(chart)]
        at = max(range(len(best)), key=lambda i: ends[i] - starts[i])
        found.append(((starts[at] + ends[at]) / 2, best[at].y[chart.y], f"{epochs} epochs", MUTED, ""))
    return found


def _labels(axes: Axes, chart: Chart, marks: Marks, lines: list[tuple[list[float], list[float]]], scale: float) -> None:
    """Names of curves and baselines, and lengths of training; one for which there is no room is left out."""
    import textalloc

    said = _lengths(chart) if chart.wide else []  # first, as what comes first finds room most easily
    said += [(m.x[chart.x], m.y[chart.y], text, INK, m.identity.family) for m, text in wording.named(chart.shown)]
    figure = cast("Figure", axes.figure)
    lay_out(figure)
    figure.set_layout_engine("none")  # another layout would move the axes under the labels
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    inside = 0.012 * (right - left)
    arguments: Mapping[str, Any] = {
        "x_scatter": [m.x[chart.x] for m in chart.shown], "y_scatter": [m.y[chart.y] for m in chart.shown],
        "scatter_sizes": [8.0 * scale] * len(chart.shown), "x_lines": [x for x, _ in lines] or None,
        "y_lines": [y for _, y in lines] or None, "xlims": (left + inside, right - inside), "ylims": (low, high),
        "textsize": 9 * scale, "textcolor": [colour for *_, colour, _ in said], "linecolor": MUTED,
        "linewidth": 0.6 * scale, "draw_all": False, "max_distance": 0.2, "min_distance": 0.012, "margin": 0.01,
        "nbr_candidates": 300, "avoid_label_lines_overlap": True, "avoid_crossing_label_lines": True,
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):  # it prints where it finds no room at all
        placed: tuple[list[Any], ...] = textalloc.allocate(
            axes, [s[0] for s in said], [s[1] for s in said], [s[2] for s in said], **arguments
        )
    for text, leader, (*_, family) in zip(*placed[2:], said, strict=True):
        if text is not None:
            text.set_gid(marks.tag("label", method=family))
        if leader is not None:
            leader.set_gid(marks.tag("leader", method=family))
