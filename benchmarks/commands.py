"""What a user waits for: whole commands, of this tree and of an earlier commit, in turn, with their ratio.

    python benchmarks/commands.py
    python benchmarks/commands.py --before be53827 --commands profile,counting
    python benchmarks/commands.py --commands quickstart --jobs 2
    python benchmarks/commands.py --before be53827 --commands deformable,sparse,dino,dac

`profile` counts one detector, `profile again` looks its count up, `counting` counts every suite and writes the report,
`quickstart` compiles the op, trains and measures the four detectors and writes their report. Each begins in an empty
folder with empty caches, as on a new machine; `profile again` in those that `profile` left. Printed is the time by the
clock, the least of the rounds. `deformable`, `sparse`, `dino` and `dac` are small detectors that are trained for three
epochs of 20 steps of 16 images; printed is a step of the last two, as the record of the training has it.
`--before` checks that commit out beside this tree and runs it in the same environment; counting all suites takes a
commit of November 2026 twenty minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from detrbench import environment

ROOT = Path(__file__).resolve().parent.parent
TRAININGS = {
    "deformable": ("quickstart", "deformable"),
    "sparse": ("quickstart", "sparse-0.3"),
    "dino": ("lite_table5", "dino-4scale"),
    "dac": ("dac_figure3", "deformable-dac"),
}
IMAGES, EPOCHS = 320, 3  # of those, in steps of 16 images
STEPS = (EPOCHS - 1) * IMAGES // 16  # that are timed: without the first epoch's, in which every image is made
NAMES = ("profile", "profile again", "counting", "quickstart", *TRAININGS)


def commands(name: str, tree: Path, jobs: int) -> list[list[str]]:
    """What is typed, one after the other, and timed together."""
    if name in TRAININGS:
        return [_training(*TRAININGS[name], IMAGES, EPOCHS)]
    every = sorted(str(path) for path in (tree / "suites").glob("*.yaml"))
    return {
        "profile": [["profile", "sparse_detr_r50"]],
        "profile again": [["profile", "sparse_detr_r50"]],
        "counting": [["run", *every, "--measure", "complexity", "--jobs", str(jobs)], ["report"]],
        "quickstart": [["run", "quickstart", "--jobs", str(jobs)], ["report"]],
    }[name]


def _training(suite: str, row: str, images: int, epochs: int) -> list[str]:
    settings = {"num_train": images, "num_val": 8, "epochs": epochs, "eval_every_epochs": 0}
    asked = [f"--set={key}={value}" for key, value in settings.items()]
    return ["run", suite, "-k", row, "--scale", "smoke", "--measure", "accuracy", *asked]


def step_seconds(name: str, tree: Path, folder: Path, cache: Path) -> float:
    """Of a training step; `cache` has the compiled op, or gets it first."""
    if not cache.exists():
        type_all([_training(*TRAININGS[name], images=16, epochs=1)], tree, folder / "first", cache)
    type_all(commands(name, tree, 1), tree, folder, cache)
    (record,) = folder.glob("results/*/smoke/cells/*/training.json")
    epochs = json.loads(record.read_text(encoding="utf-8"))["records"]["training"]["epochs"]
    return float(epochs[-1]["seconds"] - epochs[0]["seconds"]) / STEPS


def seconds(name: str, tree: Path, folder: Path, jobs: int) -> float:
    """Of one round, by the clock; `folder` holds results and caches, which may be there."""
    begin = time.perf_counter()
    type_all(commands(name, tree, jobs), tree, folder)
    return time.perf_counter() - begin


def type_all(lines: Sequence[Sequence[str]], tree: Path, folder: Path, cache: Path | None = None) -> None:
    """Run commands in a folder, with its own caches or those at `cache`; the first that fails ends the benchmark."""
    folder.mkdir(parents=True, exist_ok=True)
    caches = dict.fromkeys(("DETRBENCH_CACHE", "XDG_CACHE_HOME"), str(cache or folder / "cache"))
    for typed in lines:
        done = subprocess.run(
            [sys.executable, "-m", "detrbench", *typed],
            cwd=folder,
            env=os.environ | caches | {"PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(typed)}: exit code {done.returncode}\n{done.stderr[-2000:]}")


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The tree of a commit, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def compare(names: Sequence[str], sides: dict[str, Path], rounds: int, jobs: int) -> None:
    """Print a line for each command: seconds of each side, and how many times faster this tree is."""
    print(f"{'command':<14}" + "".join(f"{side:>12}" for side in sides) + ("       ratio" if len(sides) > 1 else ""))
    with tempfile.TemporaryDirectory() as made:
        for name in names:
            least = dict.fromkeys(sides, float("inf"))
            for number in range(rounds):
                for side, tree in sides.items():
                    folder = Path(made) / f"{name.removesuffix(' again')}-{side}-{number}"
                    took = (
                        step_seconds(name, tree, folder, Path(made) / f"compiled-{side}")
                        if name in TRAININGS
                        else seconds(name, tree, folder, jobs)
                    )
                    least[side] = min(least[side], took)
            ratio = f"{least['before'] / least['now']:>11.2f}x" if "before" in least else ""
            print(f"{name:<14}" + "".join(f"{_said(least[side]):>12}" for side in sides) + ratio, flush=True)


def _said(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", default="profile,profile again,counting", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--before", metavar="COMMIT", help="time this commit too")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=min(2, environment.cores()))
    options = parser.parse_args()
    names = [name.strip() for name in options.commands.split(",")]
    if unknown := set(names) - set(NAMES):
        parser.error(f"no command {', '.join(sorted(unknown))}: {', '.join(NAMES)}")
    here = environment.capture()
    print(
        f"{here['cpu']}, {here['cores']} cores, PyTorch {here['torch']}, commit {here['commit']}, --jobs {options.jobs}"
    )
    with checkout(options.before) if options.before else tempfile.TemporaryDirectory() as before:
        sides = ({"before": Path(before)} if options.before else {}) | {"now": ROOT}
        compare(names, sides, options.rounds, options.jobs)


if __name__ == "__main__":
    main()
