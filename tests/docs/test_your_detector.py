"""The page "Bring your own detector" does what it says: its files and its commands, as a reader would type them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from detrbench import cli
from detrbench.data.transforms import Eval
from detrbench.external import loading, remote, sources
from detrbench.worker import identity

pytestmark = pytest.mark.full
PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-detector.md"
FILE = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```', re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line.split()[1:] for block in blocks for line in block.splitlines() if "fetch" not in line]


def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    identity.sources_of.cache_clear()
    for name, text in FILE.findall(PAGE.read_text(encoding="utf-8")):
        Path(name).write_text(text, encoding="utf-8")
    said = {}
    for words in commands():
        assert cli.main(words) == 0, (words, capsys.readouterr())
        said[" ".join(words[:2])] = capsys.readouterr().out
    assert "3 cells at smoke" in said["validate coarse.yaml"]
    assert "coarse-32" in said["compare coarse:coarse-16"]
    records = {
        path.parent.name.rpartition("-")[0]: json.loads(path.read_text())["records"]
        for path in Path("results/coarse/smoke/cells").glob("*/complexity.json")
    }
    assert set(records) == {"deformable", "coarse-16", "coarse-32"}
    parts = records["coarse-16"]["native"]["gflops_by_part"]
    cells = 4 * 4
    assert parts["backbone"] * 1e9 == pytest.approx(cells * 16 * (3 * 256 + 1))  # the products, and ReLU
    assert parts["heads"] * 1e9 == pytest.approx(cells * 7 * 16)
    assert parts["other"] * 1e9 == pytest.approx(cells * 7)  # the sigmoids, outside of every part
    page = Path("report.html").read_text(encoding="utf-8")
    assert "factory:coarse:build" in page


def test_the_function_for_another_interpreter_needs_no_detrbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fork.py").write_text(dict(FILE.findall(PAGE.read_text(encoding="utf-8")))["fork.py"])
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['detrbench'] = None\n")  # not to be imported
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    detector = loading.load(sources.parse("factory:fork:build"), {}, python=sys.executable)
    assert detector.external.native == Eval(96, 160, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    images = torch.zeros(2, 3, 96, 128)
    found = detector.detections(detector(images), images, torch.tensor([[192, 256], [96, 128]]), ["a", "b"])
    assert [each.boxes.tolist() for each in found] == [[[0, 0, 256, 192]], [[0, 0, 128, 96]]]
    assert remote.of(detector) is not None
