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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detrbench.errors import EnvironmentLacking, unknown_name
from detrbench.files import write_atomic
from detrbench.report.identity import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE_SHEET = Path(__file__).resolve().parent.parent / "reports" / "style.css"
PARTS = 8  # colours of the parts of a detector

INK, MUTED, RULE, PAPER = "#010101", "#010102", "#010103", "#010104"
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"}
_VARIABLES |= {f"#0200{i:02x}": f"--series-{i + 1}" for i in range(len(METHODS))}
_VARIABLES |= {f"#0300{i:02x}": f"--part-{i + 1}" for i in range(PARTS)}

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
    """The placeholder of a method's colour."""
    return f"#0200{number % len(METHODS):02x}"


def part_colour(number: int) -> str:
    """The placeholder of a part's colour."""
    return f"#0300{number % PARTS:02x}"


@dataclass
class Marks:
    """What the drawing's group ids stand for, filled while drawing and written into the SVG afterwards."""

    salt: str
    groups: dict[str, str] = field(default_factory=dict)

    def add(self, row: str, tip: str, **data: object) -> str:
        """The id of a point that says `tip`, belongs to a table row, and carries `data` for the script."""
        return self._group("point", {"row": row, **data}, f"<title>{escape(tip)}</title>")

    def tag(self, kind: str, **data: object) -> str:
        """The id of something else that the style or the script finds by its class: a curve, a label."""
        return self._group(kind, data, "")

    def _group(self, kind: str, data: Mapping[str, object], inside: str) -> str:
        name = f"{self.salt}-{len(self.groups)}"
        more = "".join(f' data-{key}="{escape(str(value))}"' for key, value in data.items())
        self.groups[name] = f'<g class="{kind}"{more}>{inside}'
        return name


def draw_svg(name: str, draw: Callable[[Axes, Marks], None], title: str, size: tuple[float, float]) -> str:
    """A drawing as an SVG element, coloured by the page's style sheet.

    Args:
        name: distinct in its page.
        draw: fills the axes.
        title: for those who do not see it.
        size: width and height in inches of 72 pixels.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    marks = Marks(re.sub(r"[^A-Za-z0-9-]", "-", name))
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = _drawn(draw, marks, size)
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        buffer = io.StringIO()
        nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return _finish(buffer.getvalue(), title, marks)


def _drawn(draw: Callable[[Axes, Marks], None], marks: Marks, size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=size, dpi=72, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.patch.set_visible(False)
    draw(axes, marks)
    lay_out(figure)
    figure.set_layout_engine("none")  # saving would do it twice more
    return figure


FILES = (".pdf", ".svg", ".png", ".pgf")  # what a drawing can be saved as


def save(draw: Callable[[Axes, Marks], None], path: Path, size: tuple[float, float]) -> None:
    """A drawing as a file for a paper, in the page's light colours; whole or not at all.

    Args:
        draw: fills the axes.
        path: its suffix is one of FILES.
        size: width and height in inches.

    Raises:
        UsageError: another suffix.
        EnvironmentLacking: pgf without LaTeX.
    """
    import matplotlib

    if path.suffix not in FILES:
        raise unknown_name("format of a figure", path.suffix or path.name, FILES)
    colours = _light_colours()
    style = {key: colours.get(value, value) if isinstance(value, str) else value for key, value in _STYLE.items()}
    buffer = io.BytesIO()
    with matplotlib.rc_context({**style, "svg.hashsalt": path.stem, "pdf.fonttype": 42}):
        figure = _drawn(draw, Marks("figure"), size)
        _recolour(figure, colours)
        dates = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
        try:
            figure.savefig(buffer, format=path.suffix[1:], dpi=300, metadata=dates.get(path.suffix))
        except (RuntimeError, FileNotFoundError) as error:
            if path.suffix != ".pgf":
                raise
            hint = "install xelatex (Debian: texlive-xetex), or write a pdf"
            raise EnvironmentLacking(f"pgf needs LaTeX to measure text: {error}", hint=hint) from error
    write_atomic(path, buffer.getvalue())


def _light_colours() -> dict[str, str]:
    """Placeholder to colour, as the style sheet has them for light."""
    style = STYLE_SHEET.read_text(encoding="utf-8")
    found = {name: re.search(rf"{name}: (#[0-9a-f]{{6}})", style) for name in _VARIABLES.values()}
    colours = {placeholder: match[1] for placeholder, name in _VARIABLES.items() if (match := found[name])}
    return colours | {PAPER: "#ffffff"}


def _recolour(figure: Figure, colours: Mapping[str, str]) -> None:
    from matplotlib.colors import to_hex

    for artist in figure.findobj():
        for what in ("color", "markerfacecolor", "markeredgecolor"):
            value = getattr(artist, f"get_{what}", lambda: None)()
            if isinstance(value, str) and value not in ("auto", "none") and to_hex(value) in colours:
                getattr(artist, f"set_{what}")(colours[to_hex(value)])


def lay_out(figure: Figure | None) -> None:
    """Sizes the axes to leave room for their labels, after which data have places."""
    engine = figure.get_layout_engine() if figure else None
    if figure and engine:
        engine.execute(figure)


def _finish(svg: str, title: str, marks: Marks) -> str:
    """Cuts the XML head, puts colours and fonts under the page's style, names the drawing and its points."""
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="([^"]*)">', lambda tag: marks.groups.get(tag[1], tag[0]), svg)
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
