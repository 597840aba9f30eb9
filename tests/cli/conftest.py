"""`terminal`: a directory with a suite, in which commands are typed and steps cost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shipped_suites
from terminal import SUITE, FakeData, Terminal

from detrbench import environment
from detrbench.errors import DataError
from detrbench.suite import loading


@pytest.fixture(autouse=True, scope="package")
def _suites_that_come_along_are_read_once() -> Iterator[None]:
    """`list` and `show` of a model read all of them."""
    read, names = loading.load, frozenset(loading.names())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", lambda name: (shipped_suites.load if name in names else read)(name))
        yield


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    from detrbench.run import steps, work

    made = Terminal(tmp_path, capsys)
    (tmp_path / "demo.yaml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    for name in ("take", "load_and_try", "take_latency"):
        monkeypatch.setattr(steps, name, getattr(made, name))

    def open_data(spec: Any, split: str) -> FakeData:
        if spec.kind == "coco":
            raise DataError(f"{spec.path}: no data set here")
        return FakeData()

    monkeypatch.setattr(work, "dataset_of", open_data)
    monkeypatch.setattr(environment, "capture", lambda: {"torch": "test", "cores": 2})
    monkeypatch.setattr(environment, "pick_device", lambda asked: "cpu")
    return made
