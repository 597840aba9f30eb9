"""Records the small references anew and says what changed: `make record-references`, or with names for some of them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reference import small
from reference.small_cases import CASES


def main(names: list[str]) -> None:
    """Run each case, print its largest changes, write its file."""
    for name in names or [small.OPTIONS, *CASES]:
        recorded = small.read(name)
        if name == small.OPTIONS:
            found = small.options()
            changed = small.changed_options(found, recorded)
        else:
            found = small.figures(CASES[name])
            changed = small.changes(found, recorded)
        if not recorded:
            print(f"{name}: new")
        elif not changed:
            print(f"{name}: unchanged")
        for quantity, change in sorted(changed.items() if recorded else ()):
            print(f"{name}: {quantity} {change}")
        if changed:
            small.write(name, found)
    for path in small.FOLDER.glob("*.json"):
        if path.stem not in (small.OPTIONS, *CASES):
            path.unlink()
            print(f"{path.stem}: gone")


if __name__ == "__main__":
    main(sys.argv[1:])
