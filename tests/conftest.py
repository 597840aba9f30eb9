"""Lets tests import the helpers that lie beside them; holds results against recorded ones (`--record` writes these)."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ["COLUMNS"] = "200"  # of a terminal; what runs the tests may have set less


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write what is recorded under tests/reference anew")


def pytest_collection_finish() -> None:
    """What is imported by now stays: looking through it for garbage, again and again, would take a part of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def counts_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests count is kept for them alone, and what others have counted is not looked at."""
    from detrbench.measure import counting

    folder = tmp_path_factory.mktemp("counts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_folder", lambda: folder)
        yield


@pytest.fixture
def recorded(request: pytest.FixtureRequest) -> Callable[[str, Any], Any]:
    """`recorded(name, found)`: what tests/reference/<name>.json holds; with `--record`, what was found goes there."""

    def read(name: str, found: Any) -> Any:
        path = HERE / "reference" / f"{name}.json"
        if request.config.getoption("--record"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(found, indent=0, sort_keys=True) + "\n", encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))

    return read
