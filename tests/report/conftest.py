"""Results folders with invented figures for the report's tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import report_fixture
from browser import Browser

from detrbench.report import plots, scatter

PLOTS = ((scatter, "drawing"), (plots, "stacked"), (plots, "spreads"), (plots, "curves"))


@pytest.fixture(autouse=True, scope="session")
def _each_plot_is_drawn_once() -> Iterator[None]:
    """Most tests draw the same few plots, a third of a second each; a page made in another process is not spared."""
    drawn: dict[str, str] = {}

    def once(draw: Callable[..., str]) -> Callable[..., str]:
        def remembered(*arguments: object, **named: object) -> str:
            key = repr((draw.__name__, arguments, named))
            if key not in drawn:
                drawn[key] = draw(*arguments, **named)
            return drawn[key]

        return remembered

    with pytest.MonkeyPatch.context() as patch:
        for module, name in PLOTS:
            patch.setattr(module, name, once(getattr(module, name)))
        yield


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without drawings, for tests of what stands beside them."""
    for module, name in PLOTS:
        monkeypatch.setattr(module, name, lambda *arguments, **named: "")


@pytest.fixture(scope="session")
def _written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_fixture.write_quickstart(report_fixture.write_table6(tmp_path_factory.mktemp("written")))


@pytest.fixture
def results(tmp_path: Path, _written: Path) -> Path:
    """Two suites: one with a published table and rows that are not built, one without."""
    return Path(shutil.copytree(_written, tmp_path / "results"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Starts in a second, which every test would pay for."""
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()
