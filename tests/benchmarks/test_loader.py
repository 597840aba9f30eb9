"""The benchmark of the loader reads all images with and without worker processes."""

from __future__ import annotations

import json
import sys

import pytest
from benchmark_scripts import script

loader = script("loader")


def test_both_read_and_both_are_waited_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--images", "12", "--longest", "96", "--workers", "1", "--step", "20", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["loader.py", *arguments, "--json"])
    loader.main()
    alone, ahead = json.loads(capsys.readouterr().out)["costs"]
    assert (alone["workers"], ahead["workers"]) == (0, 1)
    for cost in (alone, ahead):
        assert cost["images_per_second"] > 0
        assert cost["wait_milliseconds"] > 0
