"""The list of mistakes: `list/*.yaml`, one entry a file of the project with its tests and the mistakes made in it.

A mistake is keyed by its snippet, not by a line: `was` stands exactly once in the file, `now` takes its place. `tests`
are those from which the mistake should be noticed first, the quickest in front. A mistake that changes nothing that
anybody could see has its reason in `equivalent`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path(__file__).with_name("list")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the tests that read the list do so as they are collected


@dataclass(frozen=True)
class Mistake:
    """One deliberate mistake; `area` is the list that it stands in."""

    id: str
    area: str
    file: str
    means: str
    was: str
    now: str
    tests: tuple[str, ...]
    equivalent: str | None = None

    def made_in(self, text: str) -> str:
        """The file's text with the mistake in it.

        Raises:
            ValueError: the snippet stands there never, or more than once.
        """
        count = text.count(self.was)
        if count != 1:
            raise ValueError(f"{self.id}: expected its snippet once in {self.file}, found it {count} times")
        return text.replace(self.was, self.now)


def load(folder: Path = LISTS) -> list[Mistake]:
    """All mistakes, list by list."""
    return [
        Mistake(area=path.stem, file=entry["file"], tests=tuple(entry["tests"]), **mistake)
        for path in sorted(folder.glob("*.yaml"))
        for entry in yaml.load(path.read_text(encoding="utf-8"), LOADER)  # noqa: S506  (either is safe)
        for mistake in entry["mistakes"]
    ]
