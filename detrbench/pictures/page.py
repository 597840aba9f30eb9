"""The pictures of some images as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from detrbench.pictures.gallery import Exhibit

FOLDER = Path(__file__).resolve().parent.parent / "reports"


def render(title: str, images: Mapping[str, Sequence[Exhibit]]) -> str:
    """The page.

    Args:
        title: which detector, with which weights.
        images: the pictures of each image, by its name.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(FOLDER / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    page: str = environment.get_template("pictures.html.j2").render(title=title, images=images, style=style)
    return page.strip() + "\n"
