"""Several trainings of a cell: gathered when a folder is read, and addressed one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detrbench.errors import UsageError
from detrbench.results import address
from detrbench.results.store import ResultsStore


def put(root: Path, id_: str, seed: int, of: str | None = None, **changed: Any) -> None:
    """A cell with an AP of its seed."""
    folder = ResultsStore(root).folder("demo", "smoke", f"{id_.replace('#', '_')}-{seed:08d}")
    described = {"id": id_, "suite": "demo", "scale": "smoke", "index": 0, "model": "m", "options": {}}
    resolved = {"seed": seed, "epochs": 8, **changed}
    folder.write_cell({**described, "resolved": resolved, **({"seed_of": of} if of else {})})
    record = {"protocol_version": 1, "ap": {"value": float(seed), "unit": "points", "n": 4}}
    folder.write_envelope("accuracy", f"{id_} {seed}", {"common": record}, {}, 1.0)
    folder.set_state(id_, "accuracy", "done")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path, "a", 3)
    for number in range(1, 12):
        put(tmp_path, f"a#{number}", 3 + number, of="a")
    return tmp_path


def test_trainings_stand_in_their_cell_by_seed(root: Path) -> None:
    (cell,) = ResultsStore(root).cells("demo", "smoke")
    assert [each.id for each in cell.trainings] == ["a", *(f"a#{number}" for number in range(1, 12))]
    assert not any(each.further for each in cell.trainings)


def test_trainings_of_other_settings_are_none_of_it(root: Path) -> None:
    """`--set epochs=9` made a new first training; the others are still those of 8 epochs."""
    put(root, "a", 99, epochs=9)
    (cell,) = ResultsStore(root).cells("demo", "smoke")
    assert (cell.cell["resolved"]["epochs"], cell.further) == (9, ())


def test_given_weights_are_not_averaged_with_trainings(root: Path) -> None:
    """Three seeds were trained, then released weights were fetched, with which the first cell is measured since."""
    (path,) = root.glob("demo/smoke/cells/a-*/accuracy.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights": "checkpoint"}))
    (cell,) = ResultsStore(root).cells("demo", "smoke")
    assert (cell.given, cell.further) == (True, ())


def test_a_training_without_its_cell_stands_alone(tmp_path: Path) -> None:
    put(tmp_path, "a#1", 1, of="a")
    assert [cell.id for cell in ResultsStore(tmp_path).cells("demo", "smoke")] == ["a#1"]


def test_the_frame_has_all_of_them(root: Path) -> None:
    assert sorted(ResultsStore(root).frame()["ap.value"]) == [float(seed) for seed in range(3, 15)]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("demo:a", ["a"]),
        ("demo:a#0", ["a"]),
        ("dem:a#1@sm", ["a#1"]),
        ("demo:a#11", ["a#11"]),
        ("demo/smoke/a#2", ["a#2"]),
    ],
)
def test_addresses(root: Path, text: str, ids: list[str]) -> None:
    found = address.several(text, root)
    assert [each.id for each in found] == ids
    assert bool(found[0].further) == ("#" not in text)


def test_the_address_of_a_training_leads_to_it(root: Path) -> None:
    (cell,) = ResultsStore(root).cells("demo", "smoke")
    assert address.of(cell.further[1]) == "demo:a#2@smoke"
    assert address.one(address.of(cell.further[1]), root) == cell.further[1]


@pytest.mark.parametrize(("text", "hint"), [("demo:a#12", "#11"), ("demo:b#1", "a"), ("demo:a#x", "a")])
def test_an_address_of_no_training_is_an_error(root: Path, text: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        address.several(text, root)
    assert hint in str(raised.value.hint)


def test_an_id_may_end_as_a_training_does(tmp_path: Path) -> None:
    put(tmp_path, "b#7", 1)
    assert [each.id for each in address.several("demo:b#7", tmp_path)] == ["b#7"]


def test_a_suite_with_results_is_meant_before_a_folder_of_its_name(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    put(elsewhere / "demo", "b", 1)
    monkeypatch.chdir(elsewhere)
    assert [cell.id for cell in address.several("demo", root)] == ["a"]
    assert address.one("demo:a", root).id == "a"
    assert [cell.id for cell in address.several("./demo", root)] == ["b"]
    assert [cell.id for cell in address.several("demo", elsewhere / "none")] == ["b"]
