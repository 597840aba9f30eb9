"""Figures as inline SVG: matplotlib draws, the page's style sheet colours.

Every colour is drawn as a placeholder that becomes a CSS variable, so one drawing serves light, dark and print. Text
stays text. Points carry a <title>, which browsers show on hover and the page's script shows more finely. Equal
figures give equal bytes: ids are hashed with a fixed salt, no date, no creator.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = 8  # colours in the palette; a ninth family takes the first again, with another marker

INK, MUTED, RULE, PAPER = "#010101", "#010102", "#010103", "#010104"
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"}
_VARIABLES |= {f"#0200{i:02x}": f"--series-{i + 1}" for i in range(SERIES)}
_VARIABLES |= {f"#0300{i:02x}": f"--part-{i + 1}" for i in range(SERIES)}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.5,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "path.simplify": False,
    "text.parse_math": False,
}


def series_colour(number: int) -> str:
    """The placeholder of a family's colour."""
    return f"#0200{number % SERIES:02x}"


def part_colour(number: int) -> str:
    """The placeholder of a part's colour."""
    return f"#0300{number % SERIES:02x}"


@dataclass
class Marks:
    """What the drawing's group ids stand for, filled while drawing and written into the SVG afterwards."""

    salt: str
    titles: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, row: str, tip: str) -> str:
        name = f"{self.salt}-{len(self.titles)}"
        self.titles[name] = (row, tip)
        return name


def draw_svg(name: str, draw: Callable[[Axes, Marks], None], title: str, size: tuple[float, float]) -> str:
    """A drawing as an SVG element.

    Args:
        name: distinct in its page.
        draw: fills the axes.
        title: for those who do not see it.
        size: width and height in inches of 72 pixels.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    marks = Marks(re.sub(r"[^A-Za-z0-9-]", "-", name))
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
        lay_out(figure)
        figure.set_layout_engine("none")  # saving would do it twice more
        buffer = io.StringIO()
        nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return _finish(buffer.getvalue(), title, marks)


def lay_out(figure: Figure | None) -> None:
    """Sizes the axes to leave room for their labels, after which data have places."""
    engine = figure.get_layout_engine() if figure else None
    if figure and engine:
        engine.execute(figure)


def _finish(svg: str, title: str, marks: Marks) -> str:
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
