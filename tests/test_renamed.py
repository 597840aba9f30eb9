"""Suites of which users were told another name: it names them still, and so do files and folders that carry it."""

from __future__ import annotations

from pathlib import Path

import pytest

from detrbench import renamed
from detrbench.errors import UsageError
from detrbench.results import address
from detrbench.results.store import ResultsStore
from detrbench.suite import loading

FORMER, CURRENT = "table6_keep_ratio", "focus_table6_keep_ratio"


def store_with(root: Path, *names: str) -> ResultsStore:
    """A results folder with a cell of each suite that is named after it."""
    for name in names:
        path = root / name / "smoke" / "cells" / f"{name}-1"
        path.mkdir(parents=True)
        (path / "cell.yaml").write_text(f"id: {name}\n")
        (path / "complexity.json").write_text(
            '{"schema": 1, "key": "k", "measure": "complexity", "records": {"common": '
            '{"protocol": "common", "protocol_version": 1}}}'
        )
    return ResultsStore(root)


def test_every_former_name_stands_for_a_suite_that_comes_along() -> None:
    assert set(renamed.CURRENT.values()) <= set(loading.names())
    assert not set(renamed.CURRENT) & set(loading.names())
    assert len(renamed.FORMER) == len(renamed.CURRENT) == 13


@pytest.mark.parametrize("name", [FORMER, f"suites/{FORMER}.yaml", f"{loading.FOLDER}/{FORMER}.yaml"])
def test_a_former_name_or_path_names_the_suite(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert loading.load(name).suite.name == CURRENT


def test_a_users_own_file_of_that_name_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{FORMER}.yaml").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert loading.locate(f"{FORMER}.yaml") == Path(f"{FORMER}.yaml")
    with pytest.raises(UsageError, match="no such file"):
        loading.locate("elsewhere/table6_keep_ratio.yaml")


@pytest.mark.parametrize("folder", [FORMER, CURRENT])
def test_results_are_found_by_both_names_wherever_they_lie(tmp_path: Path, folder: str) -> None:
    store = store_with(tmp_path, folder, "demo")
    assert store.suites() == [("demo", "smoke"), (CURRENT, "smoke")]
    (found,) = store.cells(CURRENT, "smoke")
    assert (found.suite, found.folder.parts[-4]) == (CURRENT, folder)
    assert store.folder(CURRENT, "smoke", "new-1").path.parts[-4] == folder
    for text in (FORMER, CURRENT, f"{FORMER}:{folder}@smoke", f"{FORMER}/smoke/{folder}", str(tmp_path / folder)):
        assert [address.of(cell) for cell in address.several(text, tmp_path)] == [f"{CURRENT}:{folder}@smoke"]


def test_of_two_folders_each_keeps_its_name(tmp_path: Path) -> None:
    store = store_with(tmp_path, FORMER, CURRENT)
    assert store.suites() == [(CURRENT, "smoke"), (FORMER, "smoke")]
    assert {address.one(name, tmp_path).id for name in (FORMER, CURRENT)} == {FORMER, CURRENT}
    assert store.folder(CURRENT, "smoke", "new-1").path.parts[-4] == CURRENT


def test_files_of_a_suite_are_found_by_its_former_name(tmp_path: Path) -> None:
    assert renamed.place(tmp_path, CURRENT, ".yaml") == tmp_path / f"{CURRENT}.yaml"
    (tmp_path / f"{FORMER}.yaml").touch()
    assert renamed.place(tmp_path, CURRENT, ".yaml") == tmp_path / f"{FORMER}.yaml"
    (tmp_path / f"{CURRENT}.yaml").touch()
    assert renamed.place(tmp_path, CURRENT, ".yaml") == tmp_path / f"{CURRENT}.yaml"
