"""Pipes and devices in place of files, in every command that reads one: a line and an exit code, soon."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from detrbench import cli

PATIENCE = 60  # seconds; a pipe that is opened waits for ever


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise TimeoutError("still reading")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["pipe", "device"])
def special(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a pipe that nobody writes into, or of a device without an end."""
    monkeypatch.chdir(tmp_path)
    if request.param == "device":
        return "/dev/zero"
    os.mkfifo(tmp_path / "pipe")
    return "pipe"


COMMANDS = [
    "run {}",
    "run {} --dry-run",
    "run quickstart --data {} --dry-run",
    "train {} sparse_detr_tiny",
    "report {}",
    "report --results {}",
    "compare {} {}",
    "check {}",
    "check quickstart --results {}",
    "show {}",
    "validate {}",
    "evaluate {} --data .",
    "evaluate predictions.json --data {}",
    "predict sparse_detr_tiny {} --checkpoint weights.pth",
    "predict sparse_detr_tiny image.png --checkpoint {}",
    "visualize sparse_detr_tiny {} --checkpoint weights.pth",
    "convert {}",
    "weights import sparse_detr/r50_rho0.3 {}",
    "figure ap_gflops --results {}",
]
NOTHING_THERE = ("list results --results {}", "run quickstart -s init={} --dry-run",
                 "run quickstart -s init_from={} --dry-run")  # fmt: skip


@pytest.mark.parametrize("command", [*COMMANDS, *NOTHING_THERE])
def test_what_is_no_file_is_refused_at_once(
    command: str, special: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    (tmp_path / "predictions.json").write_text("[]")
    (tmp_path / "weights.pth").write_text("")
    code = cli.main(command.replace("{}", special).split())
    errors = capsys.readouterr().err
    assert code in ((0,) if command in NOTHING_THERE else (2, 5)), errors
    assert "internal error" not in errors
    assert "Traceback" not in errors
