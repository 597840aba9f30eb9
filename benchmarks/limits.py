"""The stated limits, tried: 10,000 cells in a results folder, a page of 300 rows, 120,000 images.

    python benchmarks/limits.py                                  everything; about ten minutes on two cores
    python benchmarks/limits.py --part cells --cells 1000

Folders and images are made up in a temporary place. Each command runs in a process of its own, which gives the seconds
of its CPU and its highest resident memory: limits are of these, as a clock shows who else is at work too. Exits with 1
where one is passed.
"""

from __future__ import annotations

import argparse
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Nothing of detrbench is imported here: the memory of a child begins with that of its parent.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parent)}


@dataclass(frozen=True)
class Limit:
    """What a command has to stay within: seconds of CPU, MiB."""

    seconds: float
    mib: float


@dataclass(frozen=True)
class Spent:
    """What a command took: seconds by the clock, seconds of CPU, MiB."""

    clock: float
    cpu: float
    mib: float


# By command, for 10,000 cells; docs/robustness.md states them.
CELLS = {
    "run suites/*.yaml --dry-run": Limit(120, 2048),
    "list results": Limit(120, 2048),
    "check suites/many_0.yaml": Limit(60, 2048),
    "compare results/ results/": Limit(240, 6144),
    "report --format csv -o figures.csv": Limit(240, 6144),
    "report -o report.html": Limit(240, 6144),
}
PAGE = Limit(1.0, 1024)  # seconds until a page of 300 rows is loaded
IMAGES = Limit(300, 400)


def make(what: str, folder: Path, number: int) -> None:
    """Has a folder filled by another process."""
    command = [sys.executable, str(HERE / "made_folders.py"), what, str(folder), str(number)]
    subprocess.run(command, env=ENVIRONMENT, check=True)


def spend(command: str, folder: Path) -> Spent:
    """Runs a command of detrbench in a folder; raises SystemExit where it fails."""
    arguments = [name for word in shlex.split(command) for name in (sorted(glob.glob(word, root_dir=folder)) or [word])]
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "detrbench", *arguments],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 6):
            said.seek(0)
            raise SystemExit(f"detrbench {command}: exit code {process.returncode}: {said.read().decode()[-500:]}")
    return Spent(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def within(what: str, spent: Spent, limit: Limit, share: float = 1.0) -> bool:
    """Prints what a command took beside its limit, of which a smaller folder gets a share; whether it holds."""
    seconds = max(limit.seconds * share, 30.0)
    holds = spent.cpu <= seconds and spent.mib <= limit.mib
    print(
        f"{what:40s} {spent.cpu:7.1f} s of CPU (at most {seconds:.0f}), {spent.clock:7.1f} s by the clock, "
        f"{spent.mib:6.0f} MiB (at most {limit.mib:.0f}){'' if holds else '  PASSED'}",
        flush=True,
    )
    return holds


def try_cells(folder: Path, number: int) -> bool:
    """All commands that read a results folder, on one of so many cells."""
    make("results", folder, number)
    share = number / 10_000
    held = [within(command, spend(command, folder), limit, share) for command, limit in CELLS.items()]
    return all(held)


def try_page(folder: Path, rows: int = 300) -> bool:
    """How long Chromium takes for a page of one suite with so many rows, from its address to its load event."""
    make("results", folder, rows)
    spend("report -o report.html", folder)
    seconds = seconds_to_load(folder / "report.html")
    size = (folder / "report.html").stat().st_size / 2**20
    print(f"a page of {rows} rows, {size:.1f} MiB: loaded after {seconds:.2f} s (at most {PAGE.seconds:g})", flush=True)
    return seconds <= PAGE.seconds


def seconds_to_load(page: Path) -> float:
    """Seconds from an address to the load event, as the browser has them: the best of three."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise SystemExit("no chromium on this machine (Debian: apt-get install chromium)")
    # The page runs no script but its own, so a frame around it asks.
    probe = page.with_name("probe.html")
    probe.write_text(
        f"<body><script>const began = performance.now(); const frame = document.createElement('iframe');"
        f"frame.onload = () => document.body.append(`loaded ${{performance.now() - began}} ms`);"
        f"frame.src = '{page.name}'; document.body.append(frame);</script>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--allow-file-access-from-files"]
    found = []
    for _ in range(3):
        dumped = subprocess.run(
            [browser, *flags, "--dump-dom", probe.as_uri()], capture_output=True, text=True, check=False, timeout=120
        )
        found += [float(ms) / 1000 for ms in re.findall(r"loaded ([\d.]+) ms", dumped.stdout)]
    if not found:
        raise SystemExit(f"{browser} did not load the page: {dumped.stderr[-300:]}")
    return min(found)


def try_images(folder: Path, number: int) -> bool:
    """`validate` on so many images, every one decoded."""
    make("images", folder, number)
    return within(f"validate data, {number:,} images", spend("validate data", folder), IMAGES, number / 120_000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("cells", "page", "images"), help="only this one")
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=120_000)
    given = parser.parse_args()
    parts = {
        "cells": lambda folder: try_cells(folder, given.cells),
        "page": try_page,
        "images": lambda folder: try_images(folder, given.images),
    }
    held = []
    for name, part in parts.items():
        if given.part in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                held.append(part(Path(folder)))
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
