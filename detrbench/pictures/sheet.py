"""Panels in a grid, as PNG with a text that says what is seen. Equal panels give equal bytes.

A panel draws into axes that run from 0 to 1 rightwards and downwards over its image, so places and boxes of a `Scene`
are drawn as they are. The ground is light in light and dark pages alike: photographs want the same one.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageColor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

INK, MUTED, PAPER = "#1b1e23", "#565d67", "#fbfbf9"
# Told apart by people with any colour vision, and by lightness in print.
BLUE, ORANGE, GREEN, RED = "#0a58a8", "#d9540b", "#0b7f5b", "#c4162a"
LEVELS = ("#5b2a86", "#1f77b4", "#1a9a74", "#e8a014", "#d9540b")  # fine to coarse

_SCALE = 2  # pixels of the PNG to one of the page
_POINT = 72 / 100  # points to a pixel of the page
_EDGE, _GAP, _HEAD, _TITLE, _SIDE, _LEGEND = 8, 12, 21, 19, 20, 24
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": INK,
    "text.parse_math": False,
    "path.simplify": False,
}


@dataclass(frozen=True)
class Panel:
    """One image with what is drawn over it.

    Attributes:
        draw: fills the axes.
        aspect: height over width.
        title: a short line above it, with the figures that belong to it.
        says: the same for somebody who does not see it.
        head: who it is of, where several stand side by side.
    """

    draw: Callable[[Axes], None]
    aspect: float
    title: str
    says: str
    head: str = ""


@dataclass(frozen=True)
class Picture:
    """A drawing: PNG bytes, its size in pixels of a page, and a text that says what is seen."""

    png: bytes
    width: int
    height: int
    alt: str

    @property
    def source(self) -> str:
        """The PNG as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def sheet(
    rows: Sequence[Sequence[Panel]],
    sides: Sequence[str] = (),
    lead: str = "",
    width: int = 200,
    legend: Sequence[tuple[str, str]] = (),
) -> Picture:
    """Panels in rows.

    Args:
        rows: each from left to right; a row is as high as its highest panel.
        sides: a word at the left of each row.
        lead: how the alternative text begins; the panels' own follow.
        width: of a panel, in pixels of the page.
        legend: (colour, what it stands for), below.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    left = _EDGE + (_SIDE if any(sides) else 0)
    tops, bottom = _tops(rows, width)
    across = max(len(row) for row in rows) * (width + _GAP) - _GAP
    size = left + max(across, _length(legend)) + _EDGE, bottom + (_LEGEND if legend else 0)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100 * _SCALE, facecolor=PAPER)
        canvas = FigureCanvasAgg(figure)
        for index, (row, top) in enumerate(zip(rows, tops, strict=True)):
            for column, panel in enumerate(row):
                _place(figure, size, panel, left + column * (width + _GAP), top, width)
            if index < len(sides):
                middle = top + row[0].aspect * width / 2
                _write(figure, size, sides[index], _EDGE + _SIDE / 2 - 3, middle, rotation=90, color=MUTED, ha="center")
        _explain(figure, size, legend, left)
        png = _png(canvas)
    sentences = [" ".join(part for part in (panel.head and f"{panel.head}:", panel.says) if part)
                 for row in rows for panel in row]  # fmt: skip
    return Picture(png, *size, " ".join([lead, "; ".join(sentences) + "."]).strip())


def _tops(rows: Sequence[Sequence[Panel]], width: int) -> tuple[list[int], int]:
    """Where each row's images begin, and the height of it all."""
    tops, y = [], _EDGE
    for row in rows:
        y += (_HEAD if any(panel.head for panel in row) else 0) + (_TITLE if any(panel.title for panel in row) else 0)
        tops.append(y)
        y += round(max(panel.aspect for panel in row) * width) + _GAP
    return tops, y - _GAP + _EDGE


def _place(figure: Figure, size: tuple[int, int], panel: Panel, x: int, top: int, width: int) -> None:
    height = round(panel.aspect * width)
    box = (x / size[0], 1 - (top + height) / size[1], width / size[0], height / size[1])
    axes = figure.add_axes(box)
    axes.set_axis_off()
    panel.draw(axes)
    axes.set(xlim=(0, 1), ylim=(1, 0))
    if panel.title:
        _write(figure, size, _fitting(panel.title, width, 6.4), x, top - _TITLE / 2, color=MUTED)
    if panel.head:
        y = top - (_TITLE if panel.title else 0) - _HEAD / 2 + 1
        _write(figure, size, _fitting(panel.head, width, 8.6), x, y, weight="bold", points=13)


_LETTER, _KEY = 6.6, 15  # pixels of a letter of the legend, and of the mark before it with its gap


def _length(legend: Sequence[tuple[str, str]]) -> int:
    return round(sum(_KEY + _LETTER * len(words) + _GAP for _, words in legend))


def _explain(figure: Figure, size: tuple[int, int], legend: Sequence[tuple[str, str]], x: float) -> None:
    from matplotlib.patches import Rectangle

    y = size[1] - _EDGE - _LEGEND / 2 + 4
    for colour, words in legend:
        corner, extent = (x / size[0], 1 - (y + 4) / size[1]), (9 / size[0], 9 / size[1])
        figure.add_artist(Rectangle(corner, *extent, color=colour, linewidth=0))
        _write(figure, size, words, x + _KEY, y, color=MUTED)
        x += _KEY + _LETTER * len(words) + _GAP


def _write(
    figure: Figure, size: tuple[int, int], text: str, x: float, y: float, points: float = 11.5, **how: Any
) -> None:
    how = {"ha": "left", "va": "center", **how}
    figure.text(x / size[0], 1 - y / size[1], text, fontsize=points * _POINT, **how)


def _fitting(text: str, width: int, letter: float) -> str:
    """As much of a text as a panel's width has room for."""
    most = int(width / letter)
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _png(canvas: FigureCanvasAgg) -> bytes:
    """The drawing in 256 colours, which is a third of the bytes; PNG from Pillow names neither date nor library."""
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    few = drawn.quantize(palette=_palette(drawn), dither=Image.Dither.FLOYDSTEINBERG)
    buffer = io.BytesIO()
    few.save(buffer, "PNG")
    return buffer.getvalue()


def _palette(drawn: Image.Image) -> Image.Image:
    """The image's most frequent colours, and those that mean something, however few pixels have them."""
    ours = [colour for name in dict.fromkeys((INK, MUTED, PAPER, BLUE, ORANGE, GREEN, RED, *LEVELS))
            for colour in ImageColor.getrgb(name)]  # fmt: skip
    frequent = drawn.reduce(3).quantize(256 - len(ours) // 3, Image.Quantize.MEDIANCUT).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette((ours + frequent)[: 3 * 256])
    return palette
