"""`fuzz`: holds a property for drawn cases, a few in `make test`, thousands in `make test-full`."""

from __future__ import annotations

import importlib
import os
import random
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from answers import TALLY
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

T = TypeVar("T")

FEW, MANY = 3, 170  # cases of one fuzzer
SEED = int(os.environ.get("FUZZ_SEED") or random.randrange(2**32))


class Fuzz:
    """Draws cases. What fails is made as small as it can be and printed as lines for a shell, with the seed."""

    def __init__(self, count: int, start: int) -> None:
        self.count, self.start = count, start

    def __call__(self, cases: st.SearchStrategy[T], holds: Callable[[T], Any]) -> None:
        @seed(self.start)
        @settings(
            max_examples=self.count,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
        )
        @given(case=cases)
        def every(case: T) -> None:
            holds(case)

        print(f"seed {self.start}: the same cases again by `make fuzz SEED={self.start} CASES={self.count}`")
        every()


@pytest.fixture(params=[pytest.param(False, id="few"), pytest.param(True, id="many", marks=pytest.mark.full)])
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    """The few are the same each time; the many follow from the seed, FUZZ_SEED or a new one."""
    many = int(os.environ.get("FUZZ_CASES") or MANY)
    return Fuzz(many, SEED) if request.param else Fuzz(FEW, 0)


@pytest.fixture(scope="session", autouse=True)
def imported_before() -> None:
    """No command waits for PyTorch: what it takes is its own time."""
    importlib.import_module("detrbench.run.execute")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands keep for later goes to a folder of the test; what GitHub's runner says is not heard."""
    monkeypatch.setenv("DETRBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "fuzz-cache"))
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp() / "fuzz-home"))
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many commands were typed, and how they ended."""
    if TALLY.codes:
        ends = ", ".join(f"{code}: {count}" for code, count in sorted(TALLY.codes.items()))
        terminalreporter.write_line(f"fuzz: {sum(TALLY.codes.values())} commands; exit codes {ends}; seed {SEED}")
