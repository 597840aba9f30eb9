"""Rows that name released weights: what is planned without them, with them, and when training is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detrbench import cli, models, yaml12
from detrbench.errors import DataError, SuiteError
from detrbench.results.store import ResultsStore
from detrbench.run import plan, steps
from detrbench.run.keys import Conditions
from detrbench.run.plan import WorkItem
from detrbench.suite import loading as suites
from detrbench.weights import catalogue, place
from detrbench.weights.catalogue import Entry

SMALL = "hidden_dim: 32, width: 8, ffn_dim: 48, num_queries: 5, num_classes: 3"
SUITE = f"""\
name: demo
title: A demonstration
defaults: {{{SMALL}}}
variants:
  - {{id: "sparse-{{keep_ratio}}", model: sparse_detr_tiny, official: "family/rho{{keep_ratio}}",
     matrix: {{keep_ratio: [0.1, 0.3]}}, protocols: [paper_top100]}}
  - {{id: at-0.5, model: sparse_detr_tiny, options: {{keep_ratio: 0.5}}, weights_of: sparse-0.1}}
  - {{id: alone, model: deformable_detr_tiny}}
  - {{id: by-hand, model: deformable_detr_tiny, official: family/drive}}
scales:
  paper: {{data: coco, epochs: 2}}
  smoke: {{data: shapes, num_train: 8, num_val: 4, image_size: 64, epochs: 1}}
measure: [complexity, accuracy, latency]
"""
OPTIONS: dict[str, Any] = {"hidden_dim": 32, "width": 8, "ffn_dim": 48, "num_queries": 5, "num_classes": 3}
# Trained with other positions than the row says, as Focus-DETR's.
TRAINED: dict[str, Any] = {**OPTIONS, "position_temperature": 20, "position_offset": 0.0}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of three, and an empty folder of weights."""

    def entry(name: str, model: str, options: dict[str, Any], url: str | None) -> Entry:
        by_hand = None if url else "https://drive.example/1"
        source = {"adapter": "detrbench", "paper": "a paper", "code": "a/b@1", "licence": "MIT", "note": None}
        return Entry(name, model, options, {"paper_top100": 46.0}, url, by_hand, None, None, **source)

    found = {
        f"family/rho{ratio}": entry(
            f"family/rho{ratio}",
            "sparse_detr_tiny",
            {**TRAINED, "keep_ratio": ratio},
            f"https://example.invalid/rho{ratio}.safetensors",
        )
        for ratio in (0.1, 0.3)
    }
    found["family/drive"] = entry("family/drive", "deformable_detr_tiny", OPTIONS, None)
    monkeypatch.setattr(catalogue, "entries", lambda: found)
    monkeypatch.setattr(place, "_chosen", tmp_path / "weights")
    return tmp_path / "weights"


def put(cache: Path, name: str) -> Path:
    """Makes weights and puts them where `weights fetch` would."""
    entry = catalogue.get(name)
    path = cache / name / (entry.file or "m.safetensors")
    path.parent.mkdir(parents=True)
    models.save_checkpoint(models.create(str(entry.model), **entry.options), path)
    return path


def cells(scale: str = "paper", **overrides: Any) -> list[suites.Cell]:
    data = {"path": "/data"} if scale == "paper" else {}
    return suites.read(yaml12.parse(SUITE, "demo.yaml")).cells(scale, {**data, **overrides})


def images(cell: suites.Cell, split: str) -> int:
    return 1000


def make(
    root: Path,
    found: Iterable[suites.Cell],
    *measures: str,
    train: bool = False,
    count: Callable[[suites.Cell, str], int] = images,
) -> dict[tuple[str, str], WorkItem]:
    built = frozenset({"sparse_detr_tiny", "deformable_detr_tiny"})
    environment = {"torch": "2", "cpu": "a", "cores": 2, "threads": 2, "python": "3.11"}
    now = Conditions(lambda c, s: f"data {s}", count, environment, "cpu", built)
    store = ResultsStore(root)
    items = plan.work_items(found, measures or ("complexity", "accuracy", "latency"), store, now, train=train)
    return {(item.cell.id, item.measure): item for item in items}


def states(items: dict[tuple[str, str], WorkItem], measure: str) -> dict[str, str]:
    return {cell: item.state for (cell, what), item in items.items() if what == measure}


def test_without_weights_nothing_is_trained_unasked(tmp_path: Path) -> None:
    items = make(tmp_path, cells())
    assert set(states(items, "training").values()) == {"not_measured"}
    assert set(states(items, "accuracy").values()) == {"not_measured"}
    assert set(states(items, "complexity").values()) == {"todo"}
    assert items["sparse-0.1", "accuracy"].why == (
        "official weights are missing (detrbench weights fetch family/rho0.1), or use --train"
    )
    assert items["at-0.5", "accuracy"].why == items["sparse-0.1", "accuracy"].why
    assert items["alone", "accuracy"].why == "there are no official weights; --train trains it"
    assert items["by-hand", "accuracy"].why == (
        "official weights are missing (by hand from https://drive.example/1, then: detrbench weights import FILE --as "
        "family/drive), or use --train"
    )
    assert (items["sparse-0.1", "training"].seconds or 0) > 100, "what it would cost"
    assert ("at-0.5", "training") not in items
    assert {item.weights for item in items.values()} == {"random"}


def test_what_cannot_be_estimated_is_no_mistake(tmp_path: Path) -> None:
    def only_val(cell: suites.Cell, split: str) -> int:
        if split == "train":
            raise DataError("no train2017")
        return 1000

    assert make(tmp_path, cells(), "accuracy", count=only_val)["alone", "training"].seconds is None
    with pytest.raises(DataError):
        make(tmp_path, cells(), "accuracy", count=only_val, train=True)


def test_training_is_done_when_it_is_asked_for(tmp_path: Path) -> None:
    items = make(tmp_path, cells(), train=True)
    assert states(items, "training") == dict.fromkeys(("sparse-0.1", "sparse-0.3", "alone", "by-hand"), "todo")
    assert set(states(items, "accuracy").values()) == {"todo"}


def test_what_was_trained_once_is_measured_without_asking(tmp_path: Path) -> None:
    training = make(tmp_path, cells(), train=True)["alone", "training"]
    training.folder.write_envelope("training", training.key, {}, {}, 1.0)
    assert make(tmp_path, cells())["alone", "accuracy"].state == "not_measured", "a record without weights"
    training.folder.weights.parent.mkdir(exist_ok=True)
    training.folder.weights.write_bytes(b"weights")
    items = make(tmp_path, cells())
    assert (items["alone", "training"].state, items["alone", "accuracy"].state) == ("done", "todo")
    assert make(tmp_path, cells(epochs=3))["alone", "accuracy"].state == "not_measured", "another recipe"


def test_smaller_scales_are_trained_as_ever(tmp_path: Path, cache: Path) -> None:
    put(cache, "family/rho0.1")
    items = make(tmp_path, cells("smoke"))
    assert set(states(items, "training").values()) == {"todo"}
    assert {item.official for item in items.values()} == {None}


def test_weights_that_are_here_are_measured_as_they_were_trained(tmp_path: Path, cache: Path) -> None:
    before = make(tmp_path, cells())
    path = put(cache, "family/rho0.1")
    items = make(tmp_path, cells())
    item = items["sparse-0.1", "accuracy"]
    assert (item.state, item.weights, item.cell.checkpoint) == ("todo", "checkpoint", str(path))
    assert str(item.official).startswith("family/rho0.1, sha256 ")
    assert (item.cell.options["position_temperature"], item.cell.options["keep_ratio"]) == (20, 0.1)
    assert ("sparse-0.1", "training") not in items
    assert item.folder.path == before["sparse-0.1", "accuracy"].folder.path
    assert items["sparse-0.1", "complexity"].key == before["sparse-0.1", "complexity"].key
    other = items["at-0.5", "accuracy"]
    assert (other.cell.checkpoint, other.cell.options["keep_ratio"]) == (str(path), 0.5)
    assert other.cell.options["position_temperature"] == 20
    assert items["sparse-0.3", "accuracy"].state == "not_measured"
    classes = models.resolve(str(item.cell.model), item.cell.options).options["num_classes"]
    data: Any = SimpleNamespace(num_classes=classes)
    detector = steps.load(item, "cpu", lambda *_: data)
    assert detector.spec.options["position_temperature"] == 20
    asked = make(tmp_path, cells(), train=True)
    assert ("sparse-0.1", "training") not in asked, "--train is for rows whose weights are not here"


def test_another_file_is_another_figure(tmp_path: Path, cache: Path) -> None:
    path = put(cache, "family/rho0.1")
    item = make(tmp_path, cells())["sparse-0.1", "accuracy"]
    path.with_name(f"{path.name}.json").unlink()
    models.save_checkpoint(models.create("sparse_detr_tiny", **catalogue.get("family/rho0.1").options), path)
    assert make(tmp_path, cells())["sparse-0.1", "accuracy"].key != item.key
    path.write_bytes(b"changed behind its note")
    assert "not the family/rho0.1 of " in str(make(tmp_path, cells())["sparse-0.1", "accuracy"].why)


def test_a_changed_option_is_not_measured_with_weights_of_another_detector(tmp_path: Path, cache: Path) -> None:
    put(cache, "family/rho0.1")
    item = make(tmp_path, cells(**{"model.num_queries": 7}))["sparse-0.1", "accuracy"]
    assert item.state == "not_measured"
    assert item.why == "family/rho0.1: weights of another detector: num_queries is 5, here 7"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("family/drive", "family/drove", "official: unknown weights 'family/drove'"),
        ("family/drive", "family/rho0.1", "official: family/rho0.1: weights of another detector: encoder is sparse"),
        ("matrix: {keep_ratio: [0.1, 0.3]}", "matrix: {keep_ratio: [0.1, 0.2]}", "official: unknown weights"),
    ],
)
def test_a_row_that_names_wrong_weights(old: str, new: str, expected: str) -> None:
    with pytest.raises(SuiteError, match=r"demo\.yaml:\d+:\d+: variants\[\d\]\.") as caught:
        suites.read(yaml12.parse(SUITE.replace(old, new), "demo.yaml"))
    assert expected in caught.value.message


def coco_folder(root: Path, count: int = 3) -> Path:
    """A COCO folder with an evaluation split alone: enough for weights that are trained."""
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    random = np.random.default_rng(0)
    pictures, objects = [], []
    for i in range(1, count + 1):
        Image.fromarray(random.integers(0, 255, (64, 80, 3), dtype=np.uint8)).save(root / "val2017" / f"{i}.jpg")
        pictures.append({"id": i, "file_name": f"{i}.jpg", "width": 80, "height": 64})
        box = {"bbox": [8, 8, 40, 30], "area": 1200, "iscrowd": 0}
        objects.append({"id": i, "image_id": i, "category_id": 1 + i % 3, **box})
    categories = [{"id": i, "name": f"class {i}"} for i in (1, 2, 3)]
    content = {"images": pictures, "annotations": objects, "categories": categories}
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


def test_from_the_command_to_the_figure(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Evaluated without a training split, under the paper's protocol and under `common`, from the named weights."""
    monkeypatch.chdir(tmp_path)
    data, path = coco_folder(tmp_path / "coco"), put(cache, "family/rho0.1")
    (tmp_path / "demo.yaml").write_text(SUITE)
    settings = [
        "--data",
        str(data),
        "--measure",
        "accuracy",
        "-s",
        "shortest=64",
        "-s",
        "longest=80",
        "--device",
        "cpu",
    ]
    settings += ["--weights", str(cache)]
    code = cli.main(["run", "demo.yaml", *settings, "--dry-run"])
    out = capsys.readouterr().out
    assert code == 0
    assert "2 to do" in out
    assert "3 trainings not asked for" in out
    assert out.endswith("official weights of these rows: detrbench weights fetch family/rho0.3\n")
    assert out.count("family/rho0.1, sha256 ") == 2
    assert not (tmp_path / "results").exists()
    code = cli.main(["run", "demo.yaml", *settings, "--batch", "2"])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "not measured: there are no official weights; --train trains it: alone" in said.err
    store = ResultsStore(tmp_path / "results")
    found = {result.id: result for result in store.cells("demo", "paper")}
    measured = found["sparse-0.1"]
    assert set(measured.records["accuracy"]) == {"common", "paper_top100"}
    envelope = measured.envelopes["accuracy"]
    assert envelope["weights"] == "checkpoint"
    assert envelope["batch_size"] == 2
    assert envelope["official"].startswith("family/rho0.1, sha256 ")
    assert measured.cell["official"] == "family/rho0.1"
    assert found["at-0.5"].records["accuracy"]["common"]["num_images"] == 3
    assert found["sparse-0.3"].state("accuracy")[0] == "not_measured"
    capsys.readouterr()
    for form in ("md", "html"):
        assert cli.main(["report", "results", "-o", f"report.{form}", "--format", form]) == 0
        assert f"official weights {envelope['official']}" in (tmp_path / f"report.{form}").read_text(), form
    path.unlink()
    assert cli.main(["run", "demo.yaml", *settings, "--dry-run"]) == 0
    assert "4 trainings not asked for" in capsys.readouterr().out
