"""Refuses to build a package without its models; all else that a build needs stands in pyproject.toml."""

from pathlib import Path

from setuptools import setup

LINKS = ("models", "csrc", "suites", "reports")

here = Path(__file__).resolve().parent
missing = [f"detrbench/{name}" for name in LINKS if not (here / "detrbench" / name).is_dir()]
if missing:
    raise SystemExit(
        f"detrbench cannot be built: {', '.join(missing)} should be a link to the folder of that name at the top, "
        "which this checkout lost; clone it with `git clone -c core.symlinks=true`, or take the source distribution."
    )

setup()
