"""Records the small references anew and says what changed: `make record-references`, or with names for some of them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reference import small
from reference.small_cases import CASES


def main(names: list[str]) -> None:
    """Run each case, print its largest changes, write its file."""
    for name in names or CASES:
        found, recorded = small.figures(CASES[name]), small.read(name)
        changed = small.changes(found, recorded)
        if not recorded:
            print(f"{name}: new")
        elif not changed:
            print(f"{name}: unchanged")
        for quantity, change in sorted(changed.items() if recorded else ()):
            print(f"{name}: {quantity} {change}")
        if changed:
            small.write(name, found)
    for path in set(small.FOLDER.glob("*.json")) - {small.FOLDER / f"{name}.json" for name in CASES}:
        path.unlink()
        print(f"{path.stem}: gone")


if __name__ == "__main__":
    main(sys.argv[1:])
