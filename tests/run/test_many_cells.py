"""What planning and reading cost: each file once, whatever lies beside it. `make limits` tries 10,000 cells."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from benchmark_scripts import script
from listeners import Silent

from detrbench.results.store import ResultsStore
from detrbench.run import execute
from detrbench.run.plan import WorkItem
from detrbench.run.work import RunOptions
from detrbench.suite import loading as suites

made_folders = script("made_folders")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was read, by name, and folders searched."""
    counts: Counter[str] = Counter()
    read, search = Path.read_text, Path.glob

    def counting_read(path: Path, *how: Any, **more: Any) -> str:
        counts[path.name] += 1
        return read(path, *how, **more)

    def counting_search(path: Path, pattern: str, **how: Any) -> Any:
        counts["searches"] += 1
        return search(path, pattern, **how)

    monkeypatch.setattr(Path, "read_text", counting_read)
    monkeypatch.setattr(Path, "glob", counting_search)
    return counts


def plan(file: Path, root: Path) -> list[WorkItem]:
    return execute.prepare(suites.load(str(file)), RunOptions(results=root)).items


@pytest.mark.parametrize("cells", [4, 8])
def test_a_plan_reads_each_record_once(tmp_path: Path, asked: Counter[str], cells: int) -> None:
    (file,) = made_folders.make_suites(tmp_path / "suites", cells)
    made_folders.make_results(tmp_path / "results", [file])
    asked.clear()
    items = plan(file, tmp_path / "results")
    assert {item.state for item in items} == {"done"}
    records = {name: asked[name] for name in asked if name.endswith(".json")}
    assert records == dict.fromkeys((f"{item.measure}.json" for item in items), cells)
    asked.clear()
    assert len(ResultsStore(tmp_path / "results").cells(file.stem, "smoke")) == cells
    assert set(asked.values()) <= {cells, 1}


def test_what_is_not_there_is_looked_for_once(tmp_path: Path, asked: Counter[str]) -> None:
    searches = []
    for cells in (4, 8):
        (file,) = made_folders.make_suites(tmp_path / f"suites{cells}", cells)
        asked.clear()
        assert {item.state for item in plan(file, tmp_path / "results")} == {"todo"}
        searches.append(asked["searches"])
    assert searches[0] == searches[1]


def test_a_second_run_rewrites_nothing(tmp_path: Path) -> None:
    (file,) = made_folders.make_suites(tmp_path / "suites", 3)
    made_folders.make_results(tmp_path / "results", [file])
    prepared = execute.prepare(suites.load(str(file)), RunOptions(results=tmp_path / "results"))
    execute.execute(prepared, Silent())
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    outcomes = execute.execute(prepared, Silent())
    assert {outcome.state for outcome in outcomes} == {"done"}
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before  # so it may be one that is only read
    assert not list(tmp_path.rglob(".lock-*"))
