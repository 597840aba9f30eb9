"""The benchmark of whole commands runs them from the tree it is told, in turn, and prints their ratio."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_scripts import script

from detrbench import cli

commands = script("commands")


def tree(folder: Path, said: str) -> Path:
    """One whose `detrbench` does nothing but write what it was told, and where."""
    package = folder / "detrbench"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        f"import os, sys\nfrom pathlib import Path\nwith Path('said').open('a') as said:\n"
        f"    said.write(' '.join([{said!r}, *sys.argv[1:3], os.environ['DETRBENCH_CACHE']]) + '\\n')\n"
        "sys.exit('all went wrong' if sys.argv[1] == 'report' else 0)\n"
    )
    (folder / "suites").mkdir()
    return folder


def test_a_command_runs_from_its_tree_in_a_folder_and_caches_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    assert 0 < commands.seconds("profile", tree(tmp_path / "old", "old"), folder, 1) < 60
    assert (folder / "said").read_text() == f"old profile sparse_detr_r50 {folder / 'cache'}\n"


def test_a_training_takes_what_its_record_says(tmp_path: Path) -> None:
    old, folder = tree(tmp_path / "old", "old"), tmp_path / "made"
    record = folder / "results" / "quickstart" / "smoke" / "cells" / "sparse" / "training.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"records": {"training": {"epochs": [{"seconds": 9}, {"seconds": 13}, {"seconds": 19}]}}}')
    cache = tmp_path / "compiled"
    assert commands.step_seconds("sparse", old, folder, cache) == 0.25
    assert (folder / "first" / "said").read_text() == (folder / "said").read_text() == f"old run quickstart {cache}\n"
    cache.mkdir()
    commands.step_seconds("sparse", old, folder, cache)
    assert (folder / "first" / "said").read_text() == f"old run quickstart {cache}\n"  # the op is compiled once


@pytest.mark.parametrize("name", [*commands.TRAININGS, "quickstart"])
def test_what_is_typed_is_in_the_suites(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is run: the plan is made."""
    monkeypatch.chdir(tmp_path)
    assert cli.main([*commands.commands(name, commands.ROOT, 1)[0], "--dry-run"]) == 0


def test_a_command_that_fails_ends_the_benchmark_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"(?s)report: exit code 1.*all went wrong"):
        commands.seconds("quickstart", tree(tmp_path / "old", "old"), tmp_path / "made", 1)


def test_both_sides_are_timed_in_turn_and_printed_with_their_ratio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    took = iter([8.0, 2.0, 6.0, 3.0, 1.0, 0.5, 1.0, 0.4])
    ran: list[tuple[str, str]] = []

    def seconds(name: str, tree: Path, folder: Path, jobs: int) -> float:
        ran.append((name, folder.name))
        return next(took)

    monkeypatch.setattr(commands, "seconds", seconds)
    commands.compare(["profile", "profile again"], {"before": Path("old"), "now": Path("new")}, rounds=2, jobs=1)
    assert [folder for _, folder in ran] == 2 * [
        "profile-before-0",
        "profile-now-0",
        "profile-before-1",
        "profile-now-1",
    ]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ["profile", "6.0", "s", "2.0", "s", "3.00x"],
        ["profile", "again", "1.0", "s", "400", "ms", "2.50x"],
    ]


def test_an_earlier_commit_is_checked_out_and_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    for text in ("first", "second"):
        (tmp_path / "file").write_text(text)
        subprocess.run([*git, "add", "file"], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", text], check=True)
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    with commands.checkout("HEAD~1") as before:
        assert (before / "file").read_text() == "first"
    assert not before.exists()
    assert (tmp_path / "file").read_text() == "second"
    listed = subprocess.run([*git, "worktree", "list"], check=True, capture_output=True, text=True).stdout
    assert len(listed.splitlines()) == 1


def test_a_name_that_is_no_command_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["commands.py", "--commands", "profile,cuonting"])
    with pytest.raises(SystemExit):
        commands.main()
    assert "no command cuonting" in capsys.readouterr().err
