"""`detrbench evaluate`: predictions from elsewhere become an ordinary cell, after a look at what is wrong with them."""

from __future__ import annotations

import copy
import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detrbench import cli
from detrbench.data import layouts
from detrbench.data.coco import CocoDataset
from detrbench.measure import matching, protocols, scoring
from detrbench.measure.detections import Detections

IDS = (1, 2, 5, 9)  # with gaps, as COCO's
IMAGES = 30

Type = Callable[..., tuple[int, str, str]]


def made(seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations of 30 images, and good detections of them with some that are nothing."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(1, IMAGES + 1):
        for _ in range(3):
            box = [*rng.uniform(100, 150, 2), *rng.uniform(20, 49, 2)]
            category = int(rng.choice(IDS))
            number = len(annotations) + 1
            place = {"image_id": image, "category_id": category}
            annotations.append({"id": number, **place, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
            moved = (np.array(box) + rng.normal(0, 1.5, 4)).tolist()
            found.append({**place, "bbox": moved, "score": float(rng.beta(5, 2))})
        for _ in range(40):
            stray = [*rng.uniform(0, 150, 2), *rng.uniform(5, 49, 2)]
            place = {"image_id": image, "category_id": int(rng.choice(IDS))}
            found.append({**place, "bbox": stray, "score": float(rng.beta(1, 8))})
    images = [{"id": image, "file_name": f"{image}.jpg", "width": 200, "height": 200} for image in range(1, IMAGES + 1)]
    categories = [{"id": each, "name": f"class {each}"} for each in IDS]
    return {"images": images, "annotations": annotations, "categories": categories}, found


TRUTH, GOOD = made()


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Types a command in a folder that holds the annotations (and no image)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    (tmp_path / "data" / "annotations" / "instances_val2017.json").write_text(json.dumps(TRUTH))

    def once(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return once


def put(name: str, found: Any) -> str:
    Path(name).write_text(found if isinstance(found, str) else json.dumps(found))
    return name


def suspicions(typed: Type, found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    code, out, _ = typed("evaluate", put("some.json", found), "--data", "data", "--json")
    assert code == 0
    return {each["kind"]: each for each in json.loads(out)["suspicions"]}


def good_ap() -> float:
    dataset = CocoDataset(layouts.coco.of_files(Path("data"), Path("data/annotations/instances_val2017.json"), Path()))
    return scoring.by_pycocotools(Detections.of(GOOD), dataset, protocols.get("accuracy")).stats[0] * 100


def test_the_figures_are_those_of_pycocotools_and_stand_in_every_command(typed: Type) -> None:
    code, out, _ = typed("evaluate", put("mine.json", GOOD), "--data", "data", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["record"]["stats"]["AP"] == pytest.approx(good_ap(), abs=1e-9)
    assert (found["suite"], found["scale"], found["cell"]) == ("external", "data", "mine")
    assert (Path(found["folder"]) / "detections.json.gz").is_file()
    code, _, err = typed("evaluate", "mine.json", "--data", "data", "--pycocotools")
    assert code == 0
    assert "mine: pycocotools gives the same 12 figures" in err
    worse = [each for number, each in enumerate(GOOD) if number % 3 or each["score"] < 0.3]
    code, out, _ = typed("evaluate", put("worse.json", worse), "--data", "data", "--against", "external:mine")
    assert code == 0
    assert "worse: AP" in out
    assert "unpaired" not in out
    code, out, _ = typed("compare", "external:worse", "external:mine")
    assert code == 0
    assert "mine" in out
    assert " better" in out
    code, out, _ = typed("report", "--format", "md")
    assert code == 0
    assert "| mine" in out
    assert "| worse" in out
    assert f"{good_ap():.1f}" in out


def test_check_holds_predictions_to_a_budget(typed: Type) -> None:
    typed("evaluate", put("mine.json", GOOD), "--data", "data")
    Path("budgets").mkdir()
    suite = "results/external/data/suite.yaml"
    budgets = Path("budgets/external.yaml")
    budgets.write_text("suite: external\nscale: data\nbudgets:\n  good: ap >= 20\n")
    assert typed("check", suite)[0] == 0
    budgets.write_text("suite: external\nscale: data\nbudgets:\n  good: ap >= 99\n")
    assert typed("check", suite)[0] == 1


def test_a_figure_that_pycocotools_does_not_give_is_a_finding(typed: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "IOU_THRESHOLDS", matching.IOU_THRESHOLDS + 0.01)
    code, _, err = typed("evaluate", put("mine.json", GOOD), "--data", "data", "--pycocotools")
    assert (code, "gives other figures" in err) == (1, True)


def test_two_files_are_compared_on_the_same_images(typed: Type) -> None:
    put("a.json", GOOD)
    with gzip.open("b.bbox.json.gz", "wt") as file:
        json.dump([each for each in GOOD if each["score"] > 0.6], file)
    code, out, err = typed("evaluate", "a.json", "--data", "data", "--against", "b.bbox.json.gz")
    assert code == 0, err
    assert "b → a" in out
    assert "unpaired" not in out
    assert {path.name.rsplit("-", 1)[0] for path in Path("results/external/data/cells").iterdir()} == {"a", "b"}


def test_good_predictions_raise_no_suspicion(typed: Type) -> None:
    assert suspicions(typed, GOOD) == {}


def changed(change: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    found = copy.deepcopy(GOOD)
    for each in found:
        change(each)
    return found


def as_labels(first: int) -> Callable[[dict[str, Any]], None]:
    return lambda each: each.update(category_id=IDS.index(each["category_id"]) + first)


def as_corners(each: dict[str, Any]) -> None:
    x, y, width, height = each["bbox"]
    each["bbox"] = [x, y, x + width, y + height]


def as_fractions(each: dict[str, Any]) -> None:
    each["bbox"] = [value / 200 for value in each["bbox"]]


def as_corner_fractions(each: dict[str, Any]) -> None:
    as_corners(each)
    as_fractions(each)


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (as_labels(0), "labels_for_ids", "labels 0 to 3"),
        (as_labels(1), "labels_for_ids", "labels 1 to 4"),
        (as_corners, "corners", "corners"),
        (as_fractions, "fractions", "fractions"),
        (as_corner_fractions, "fractions", "corners"),
    ],
)
def test_what_mending_gives_is_the_ap_of_the_right_file(
    typed: Type, change: Callable[[dict[str, Any]], None], kind: str, says: str
) -> None:
    found = suspicions(typed, changed(change))
    assert says in found[kind]["text"]
    assert found[kind]["mended_ap"] == pytest.approx(good_ap(), abs=0.1)


def test_what_is_missing_or_too_much(typed: Type) -> None:
    found = suspicions(typed, [*GOOD, {**GOOD[0], "image_id": 999}])
    assert set(found) == {"foreign_images"}
    assert "id 999" in found["foreign_images"]["text"]
    found = suspicions(typed, [each for each in GOOD if each["image_id"] > 2])
    assert found["no_detections"]["text"] == "2 of 30 images have no detection (id 1, ...); they hold 6 objects"
    found = suspicions(typed, [each for each in GOOD if each["score"] > 0.5])
    assert "no score is below 0.5" in found["threshold"]["text"]
    repeated = suspicions(typed, [*GOOD, *GOOD[:100]])
    assert repeated["duplicates"]["text"].startswith("100 detections repeat")
    assert repeated["duplicates"]["mended_ap"] == pytest.approx(good_ap(), abs=1e-9)
    found = suspicions(typed, changed(lambda each: each.update(score=100 * each["score"])))
    assert "percents" in found["scores"]["text"]


def test_each_suspicion_is_one_line_beside_the_figures(typed: Type) -> None:
    _, out, err = typed("evaluate", put("c.json", changed(as_corners)), "--data", "data")
    (line,) = [line for line in err.splitlines() if line.startswith("c: boxes look like corners")]
    assert line.endswith(f"mended, AP would be {good_ap():.1f}")
    assert out.startswith("c: AP ")


ENTRY = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "cannot be read as JSON"),
        ("[{", "cannot be read as JSON"),
        ({"annotations": [ENTRY]}, "expected a list of detections, found an object"),
        ([], "no detections"),
        ([ENTRY, 3], "entry 2: expected an object"),
        ([{**ENTRY, "score": None}], "entry 1: score: expected a number"),
        ([{**ENTRY, "score": float("nan")}], "entry 1: score: expected a number"),
        ([{**ENTRY, "score": "0.5"}], "entry 1: score: expected a number"),
        ([{**ENTRY, "bbox": [1, 2, 3]}], "entry 1: bbox: expected 4 numbers"),
        ([{**ENTRY, "image_id": "1"}], "entry 1: image_id: expected an integer"),
        ([{name: value for name, value in ENTRY.items() if name != "category_id"}], "entry 1: no 'category_id'"),
        ([{**ENTRY, "image_id": 77}], "none of its images is in"),
    ],
)
def test_what_is_no_file_of_predictions_is_told_in_one_line(typed: Type, content: Any, says: str) -> None:
    code, out, err = typed("evaluate", put("bad.json", content), "--data", "data")
    assert (code, out) == (2, "")
    assert says in err.splitlines()[0]
    assert not Path("results").exists()


def test_other_wrong_arguments(typed: Type) -> None:
    put("mine.json", GOOD)
    for arguments, says in (
        (("gone.json", "--data", "data"), "gone.json: no such file"),
        (("mine.json", "--data", "nowhere"), "nowhere"),
        (("mine.json", "--data", "data", "--name", "a/b"), "expected no path"),
        (("mine.json", "--data", "data", "--against", "nothing:here"), "no results there"),
        (("mine.json", "--data", "data", "--against", "mine.json"), "both would be called 'mine'"),
    ):
        code, _, err = typed("evaluate", *arguments)
        assert code == 2, arguments
        assert says in err.splitlines()[0]


def test_nothing_imports_torch(typed: Type) -> None:
    put("mine.json", GOOD)
    code = (
        "import sys; from detrbench import cli; assert cli.main(sys.argv[1:]) == 0; assert 'torch' not in sys.modules"
    )
    command = ["evaluate", "mine.json", "--data", "data", "--against", put("other.json", GOOD[:200])]
    subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True)
