"""Pictures that lie beside the page: a page with all of them in it would take long to open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from detrbench.files import write_atomic
from detrbench.pictures.gallery import Exhibit


class Album:
    """A folder beside a page, with the pictures that the page shows."""

    def __init__(self, page: Path) -> None:
        self.folder = page.with_name(f"{page.stem}_pictures")
        self._kept: dict[str, bytes] = {}

    def keep(self, place: str, exhibit: Exhibit) -> str:
        """Takes a picture of a section; returns its address from the page."""
        name = f"{re.sub('[^A-Za-z0-9_.-]+', '_', f'{place}-{exhibit.key}')}.png"
        self._kept[name] = exhibit.picture.png
        return f"{self.folder.name}/{name}"

    def write(self) -> Iterator[Path]:
        """Writes all that was kept; without pictures there is no folder. Raises Unwritable."""
        for name, png in self._kept.items():
            write_atomic(self.folder / name, png)
            yield self.folder / name
