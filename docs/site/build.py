"""Builds the documentation: the pages of docs/ with what is generated filled in, then the site. `make docs` calls it.

    build/pages/   the pages as the site generator reads them
    build/site/    the site; it opens from the file system and asks nothing of any network; its search needs a server

A page says where something generated stands: `<!-- generated: NAME -->`. The README is the first page.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import detectors
import options_and_rules
import papers
import suite_file

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
BUILD = ROOT / "build"
WORKFLOW = DOCS / "budgets-workflow.yml"
BESIDE = (".svg", ".png", ".css")  # files that pages show
RENAMED = {"README.md": "index.md", "docs/smoke/README.md": "smoke/index.md"}
MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
CODE = r"^```.*?^```|^ {4}.*?$|`[^`\n]*`"
LINK = re.compile(CODE + r"|\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)", re.MULTILINE | re.DOTALL)


def workflow() -> str:
    """The workflow that the page on CI hands out."""
    return f"```yaml\n{WORKFLOW.read_text(encoding='utf-8')}```"


GENERATED: Mapping[str, Callable[[], str]] = {
    "detectors": detectors.side_by_side,
    "papers": papers.tables,
    "not_reproduced": papers.not_reproduced,
    "suite_file": suite_file.keys,
    "options": options_and_rules.options,
    "measures": options_and_rules.measures,
    "protocols": options_and_rules.rules,
    "workflow": workflow,
}


def filled(text: str) -> str:
    """A page with what is generated in place of its markers; an unknown marker is a KeyError."""
    return MARKER.sub(lambda found: GENERATED[found[1]](), text)


def place(file: Path) -> str | None:
    """Where a file of the checkout stands in the site; None for one that has no place there."""
    name = str(file.relative_to(ROOT))
    if name in RENAMED:
        return RENAMED[name]
    shown = file.suffix in (".md", *BESIDE) and file.is_relative_to(DOCS)
    return str(file.relative_to(DOCS)) if shown else None


def relinked(text: str, page: Path) -> str:
    """The page with its links as the site has them; a file that has no place there is named instead.

    Args:
        text: Markdown.
        page: its file in the checkout.

    Raises:
        FileNotFoundError: a link to nothing.
    """

    def link(found: re.Match[str]) -> str:
        if found[2] is None:  # code
            return found[0]
        words, target, anchor = found[1], (page.parent / found[2]).resolve(), found[3] or ""
        if not target.exists():
            raise FileNotFoundError(f"{page.relative_to(ROOT)}: no {found[2]}")
        here, there = place(page), place(target)
        if here is None or there is None:
            return f"{words} (`{target.relative_to(ROOT)}`)"
        return f"[{words}]({'../' * here.count('/')}{there}{anchor})"

    return LINK.sub(link, text)


def sources() -> list[Path]:
    """The README and all of docs/ that the site shows."""
    return [ROOT / "README.md", *(file for file in sorted(DOCS.rglob("*")) if file.is_file() and place(file))]


def write_pages(folder: Path) -> None:
    """Writes the pages, and what they show, into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for file in sources():
        target = folder / str(place(file))
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".md":
            text = relinked(filled(file.read_text(encoding="utf-8")), file)
            target.write_text(text, encoding="utf-8")
        else:
            shutil.copyfile(file, target)


def main() -> int:
    """Builds the site strictly: a broken link or a name that the API does not have ends with 1."""
    write_pages(BUILD / "pages")
    shutil.copyfile(DOCS / "site" / "mkdocs.yml", BUILD / "mkdocs.yml")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", "mkdocs.yml"]
    done = subprocess.run(command, cwd=BUILD, check=False)
    if done.returncode == 0:
        print(BUILD / "site" / "index.html")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
