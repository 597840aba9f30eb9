"""Plans: what is due, in which order, and what changes a key."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from detrbench import yaml12
from detrbench.errors import DataError
from detrbench.measure import protocols
from detrbench.results.store import ResultsStore
from detrbench.run import plan
from detrbench.run.keys import Conditions
from detrbench.run.plan import WorkItem
from detrbench.suite import loading as suites

SUITE = """\
name: demo
title: A demonstration
variants:
  - {id: sparse, model: sparse_detr_tiny, options: {keep_ratio: 0.3}, protocols: [sparse_table1]}
  - {id: plain, model: deformable_detr_tiny}
  - {id: later, model: detector_of_the_future}
scales:
  smoke: {data: shapes, num_train: 8, num_val: 4, image_size: 64, epochs: 1}
  paper: {data: coco}
"""
ENVIRONMENT = {"torch": "2.11", "cpu": "a", "cores": 2, "threads": 2, "python": "3.11"}
ALL = ("complexity", "accuracy", "dam", "queries", "pictures", "memory", "latency")


def conditions(fingerprint: str = "f", device: str = "cpu", **environment: Any) -> Conditions:
    built = frozenset({"sparse_detr_tiny", "deformable_detr_tiny"})
    return Conditions(lambda c, s: f"{fingerprint}{s}", lambda c, s: 8, ENVIRONMENT | environment, device, built)


def cells(scale: str = "smoke", text: str = SUITE, **overrides: Any) -> list[suites.Cell]:
    return suites.read(yaml12.parse(text, "demo.yaml")).cells(scale, overrides)


def make(root: Path, found: Iterable[suites.Cell], measures: Iterable[str] = ALL, **changes: Any) -> list[WorkItem]:
    return plan.work_items(found, measures, ResultsStore(root), conditions(**changes))


def keys(items: Iterable[WorkItem], cell: str = "sparse") -> dict[str, str]:
    return {item.measure: item.key for item in items if item.cell.id == cell}


def test_complexity_comes_first_and_latency_last(tmp_path: Path) -> None:
    items = make(tmp_path, cells())
    assert [(i.cell.id, i.measure) for i in items if i.state == "todo"] == [
        ("sparse", "complexity"),
        ("plain", "complexity"),
        *(("sparse", m) for m in ("training", "accuracy", "dam", "queries", "pictures")),
        *(("plain", m) for m in ("training", "accuracy", "dam", "queries", "pictures")),
        ("sparse", "memory"),
        ("plain", "memory"),
        ("sparse", "latency"),
        ("plain", "latency"),
    ]
    assert {i.why for i in items if i.state == "not_measured"} == {"not built yet"}
    assert all(i.seconds and i.seconds > 0 for i in items if i.state == "todo")


def test_latency_takes_as_long_as_its_forwards(tmp_path: Path) -> None:
    def seconds(scale: str, processes: int | None) -> float:
        found, store = cells(scale, SUITE)[:1], ResultsStore(tmp_path)
        (item,) = plan.work_items(found, ["latency"], store, conditions(), processes=processes)
        assert item.seconds is not None
        return item.seconds - 2  # whatever the detector

    rule = protocols.get("latency")
    forward = seconds("paper", 1) / (rule.rounds + 1)
    assert seconds("paper", None) == pytest.approx(forward * (3 * rule.rounds + 1))
    assert seconds("paper", 5) == pytest.approx(forward * (5 * rule.rounds + 1))
    assert seconds("smoke", None) == seconds("smoke", 1) == pytest.approx(seconds("smoke", 2) * 31 / 61)


def test_training_is_planned_only_for_what_needs_it(tmp_path: Path) -> None:
    assert [i.measure for i in make(tmp_path, cells()[:1], ["complexity", "latency"])] == ["complexity", "latency"]
    for measure in ("dam", "queries"):
        assert [i.measure for i in make(tmp_path, cells()[:1], [measure])] == ["training", measure]


def test_without_data_only_what_needs_none_is_due(tmp_path: Path) -> None:
    items = make(tmp_path, cells("paper")[:1])
    assert [i.measure for i in items if i.state == "todo"] == ["complexity", "memory", "latency"]
    assert {i.weights for i in items} == {"random"}


def test_data_that_cannot_be_opened_is_a_reason(tmp_path: Path) -> None:
    def broken(cell: suites.Cell, split: str) -> str:
        raise DataError("coco: no annotations")

    now = Conditions(broken, lambda c, s: 0, ENVIRONMENT, "cpu", frozenset({"sparse_detr_tiny"}))
    items = plan.work_items(cells("paper", path="coco")[:1], ["accuracy"], ResultsStore(tmp_path), now)
    assert [(i.state, i.why) for i in items] == [("not_measured", "coco: no annotations")]


WEIGHTED = {"training", "accuracy", "dam", "queries", "pictures", "memory", "latency"}


@pytest.mark.parametrize(
    ("settings", "changes", "changed"),
    [
        ({}, {}, set()),
        ({}, {"python": "3.12"}, set()),
        ({}, {"torch": "2.12"}, {"latency", "memory"}),
        ({}, {"threads": 1}, {"latency", "memory"}),
        ({}, {"device": "cuda"}, {"latency", "memory"}),
        ({}, {"fingerprint": "g"}, WEIGHTED),
        ({"lr": 1e-3}, {}, WEIGHTED),
        ({"seed": 1}, {}, WEIGHTED),
        ({"model.keep_ratio": 0.2}, {}, {"complexity", *WEIGHTED}),
    ],
)
def test_a_key_changes_with_what_its_figure_depends_on(
    tmp_path: Path, settings: dict[str, Any], changes: dict[str, Any], changed: set[str]
) -> None:
    before = keys(make(tmp_path, cells()[:1]))
    after = keys(make(tmp_path, suites.read(yaml12.parse(SUITE, "demo.yaml")).cells("smoke", settings)[:1], **changes))
    assert {measure for measure in before if before[measure] != after[measure]} == changed


def test_a_protocols_version_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from detrbench.measure import protocols

    before = keys(make(tmp_path, cells()[:1]))
    newer = dataclasses.replace(protocols.get("complexity", "sparse_table1"), version=99)
    monkeypatch.setitem(protocols.of("complexity"), "sparse_table1", newer)
    after = keys(make(tmp_path, cells()[:1]))
    assert {measure for measure in before if before[measure] != after[measure]} == {"complexity"}


def test_what_is_done_is_known_by_its_key(tmp_path: Path) -> None:
    (item,) = make(tmp_path, cells()[:1], ["complexity"])
    item.folder.write_envelope("complexity", item.key, {"common": {}}, {}, 4.0, device="cpu")
    assert [i.state for i in make(tmp_path, cells()[:1], ["complexity"])] == ["done"]
    other = dict(zip(("sparse", "plain"), make(tmp_path, cells()[:2], ["complexity"]), strict=True))["plain"]
    assert (other.state, other.seconds) == ("todo", 4.0)  # the estimate is what the other cell took
    item.folder.write_envelope("complexity", "another", {"common": {}}, {}, 4.0)
    assert [i.state for i in make(tmp_path, cells()[:1], ["complexity"])] == ["todo"]


def test_training_is_done_only_with_its_weights(tmp_path: Path) -> None:
    training = make(tmp_path, cells()[:1], ["dam"])[0]
    training.folder.write_envelope("training", training.key, {"training": {}}, {}, 1.0)
    assert make(tmp_path, cells()[:1], ["dam"])[0].state == "todo"
    training.folder.checkpoint.mkdir()
    training.folder.weights.write_bytes(b"weights")
    assert make(tmp_path, cells()[:1], ["dam"])[0].state == "done"
    assert make(tmp_path, cells()[:1], ["latency"])[0].weights == "trained"


def test_pictures_without_their_traces_are_taken_again(tmp_path: Path) -> None:
    item = next(i for i in make(tmp_path, cells()[:1], ["pictures"]) if i.measure == "pictures")
    item.folder.write_envelope("pictures", item.key, {}, ENVIRONMENT, 1.0)
    assert make(tmp_path, cells()[:1], ["pictures"])[1].state == "todo"
    item.folder.traces.write_bytes(b"traces")
    assert make(tmp_path, cells()[:1], ["pictures"])[1].state == "done"


BORROWED = SUITE.replace(
    "  - {id: plain",
    "  - {id: sparser, model: sparse_detr_tiny, options: {keep_ratio: 0.1}, weights_of: sparse}\n  - {id: plain",
)


def test_a_cell_with_anothers_weights_is_not_trained_and_depends_on_that_training(tmp_path: Path) -> None:
    items = make(tmp_path, cells(text=BORROWED)[:2], ["accuracy", "complexity"])
    assert [(i.cell.id, i.measure) for i in items] == [
        ("sparse", "complexity"),
        ("sparser", "complexity"),
        ("sparse", "training"),
        ("sparse", "accuracy"),
        ("sparser", "accuracy"),
    ]
    sparse, sparser = (items[i] for i in (3, 4))
    assert sparser.weights == "trained"
    assert sparser.trained_in.path == sparse.folder.path == sparse.trained_in.path
    assert keys(items, "sparser")["accuracy"] != keys(items)["accuracy"]
    again = make(tmp_path, cells(text=BORROWED, lr=1e-3)[:2], ["accuracy"])
    assert keys(again, "sparser")["accuracy"] != keys(items, "sparser")["accuracy"]


def test_a_checkpoint_needs_neither_imagenet_weights_nor_training_images(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"weights")
    text = SUITE.replace("deformable_detr_tiny}", f"deformable_detr_tiny, checkpoint: {tmp_path / 'w.pth'}}}")

    def fingerprint(cell: suites.Cell, split: str) -> str:
        if split == "train":
            raise DataError("no training images here")
        return "f"

    def start(cell: suites.Cell) -> Any:
        raise DataError("no weights to begin with")

    built = frozenset({"sparse_detr_tiny", "deformable_detr_tiny"})
    now = Conditions(fingerprint, lambda c, s: 8, ENVIRONMENT, "cpu", built, start)  # type: ignore[arg-type]
    items = plan.work_items(cells(text=text), ["accuracy"], ResultsStore(tmp_path), now)
    assert {item.cell.id: (item.state, item.why) for item in items if item.cell.id != "later"} == {
        "plain": ("todo", None),
        "sparse": ("not_measured", "no weights to begin with"),
    }
