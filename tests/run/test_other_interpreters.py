"""Rows whose detectors run in another interpreter, from the command to the figures; one dies, the others do not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import own_detector
import pytest

from detrbench import cli
from detrbench.external import interpreter, remote
from detrbench.results.store import ResultsStore

# The one that dies comes first: what is its own twin dies with it.
SUITE = """
name: peers_elsewhere
title: Detectors in other interpreters
variants:
  - {{id: dies, model: external, source: "{source}", python: {python}, options: {{dies_after: 40, words: built}}}}
  - {{id: here, model: external, source: "{source}", checkpoint: {weights}}}
  - {{id: there, model: external, source: "{source}", python: {python}, checkpoint: {weights}}}
scales:
  smoke: {{like: smoke, num_val: 2}}
measure: [complexity, accuracy, memory, latency]
"""
OTHER = os.environ.get("DETRBENCH_OTHER_PYTHON")


Write = Callable[[str], None]


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes the suite, for an interpreter."""
    import torch

    monkeypatch.chdir(own_detector.write(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(tmp_path)])))
    monkeypatch.setattr(remote, "_SPIN", 0.0)  # what is timed here is no matter
    interpreter.describe.cache_clear()
    module = __import__(own_detector.MODULE)
    torch.manual_seed(1)
    torch.save(module.build().module.state_dict(), tmp_path / "weights.pth")

    def write(python: str) -> None:
        text = SUITE.format(source=own_detector.SOURCE, python=python, weights="weights.pth")
        (tmp_path / "peers.yaml").write_text(text)

    yield write
    del sys.modules[own_detector.MODULE]
    interpreter.describe.cache_clear()


def rows_of_results() -> dict[str, Any]:
    """Results by row."""
    return {result.id: result for result in ResultsStore(Path("results")).cells("peers_elsewhere", "smoke")}


def envelope(row: Any, measure: str) -> dict[str, Any]:
    return json.loads((row.folder / f"{measure}.json").read_text())  # type: ignore[no-any-return]


def test_one_that_is_killed_fails_alone(suite: Write, capfd: pytest.CaptureFixture[str]) -> None:
    suite(sys.executable)
    assert cli.main(["run", "peers.yaml", "--measure", "latency"]) == 1
    rows = rows_of_results()
    state, why = rows["dies"].state("latency")
    assert (state, why) == ("failed", f"{sys.executable}: ended (killed: out of memory?)")
    log = (rows["dies"].folder / "log.txt").read_text()
    assert "last words" in log
    assert "built" in log
    here, there = (rows[name].records["latency"]["common"] for name in ("here", "there"))
    assert here["session"] == there["session"]
    assert len(here["samples_ms"]) == len(there["samples_ms"]) == 30
    version = envelope(rows["there"], "latency")["environment"]["interpreter"]["torch"]
    assert "interpreter" not in envelope(rows["here"], "latency")["environment"]
    assert f"{sys.executable}: ended" in "".join(capfd.readouterr())
    assert cli.main(["report", "peers_elsewhere", "--format", "md", "-o", "-"]) == 0
    assert f"build, PyTorch {version} |" in "".join(capfd.readouterr())


def test_an_interpreter_that_is_not_there_is_said_before_anything_runs(
    suite: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    suite("envs/none/bin/python")
    why = f"python: {Path.cwd()}/envs/none/bin/python: No such file or directory"
    assert cli.main(["validate", "peers.yaml"]) == 0
    assert f"not here: {why}" in "".join(capfd.readouterr())
    assert cli.main(["run", "peers.yaml", "--measure", "latency", "-k", "dies or there"]) == 0
    assert "not measured" in "".join(capfd.readouterr())
    assert rows_of_results()["there"].state("latency") == ("not_measured", why)


def test_python_goes_with_a_function(suite: Write, capfd: pytest.CaptureFixture[str]) -> None:
    suite(sys.executable)
    path = Path("peers.yaml")
    path.write_text(path.read_text().replace(own_detector.SOURCE, "hf:rt_detr"))
    assert cli.main(["validate", "peers.yaml"]) == 2
    said = capfd.readouterr().err
    assert "variants[0].python: expected a source factory:..." in said
    assert "docs/your-detector.md" in said


@pytest.mark.full
@pytest.mark.skipif(OTHER is None, reason="DETRBENCH_OTHER_PYTHON names no interpreter with another PyTorch")
def test_another_pytorch_counts_and_detects_the_same_beside_ours(suite: Write) -> None:
    import torch

    suite(str(OTHER))
    assert cli.main(["run", "peers.yaml"]) == 1
    rows = rows_of_results()
    found = envelope(rows["there"], "accuracy")["environment"]["interpreter"]
    assert found["torch"] != torch.__version__
    assert rows["dies"].state("latency")[0] == "failed"
    assert rows["dies"].state("complexity")[0] == "done"
    here, there = (rows[name].records for name in ("here", "there"))
    assert here["complexity"]["common"]["gflops"] == there["complexity"]["common"]["gflops"] > 0
    assert here["accuracy"]["common"]["stats"] == pytest.approx(there["accuracy"]["common"]["stats"], abs=1e-3)
    assert here["latency"]["common"]["session"] == there["latency"]["common"]["session"]
    assert there["memory"]["common"]["forward_mib"] > 0
