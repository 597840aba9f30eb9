"""`detrbench predict` and `convert` on a tiny detector."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from terminal import TINY, Terminal, tiny_weights

from detrbench import models
from detrbench.cli.predict import draw


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights("deformable_detr_tiny", TINY, tmp_path_factory.mktemp("weights"))


def arguments(weights: Path, *more: str) -> list[str]:
    settings = [part for pair in TINY for part in ("--set", pair)]
    return [
        "deformable_detr_tiny",
        *more,
        "--checkpoint",
        str(weights),
        "--threshold",
        "0",
        "--device",
        "cpu",
        *settings,
    ]


def test_boxes_are_drawn_and_printed(terminal: Terminal, weights: Path) -> None:
    for name in ("a.jpg", "b.png"):
        Image.new("RGB", (120, 80), "gray").save(name)
    code, _, err = terminal.type("predict", *arguments(weights, "a.jpg", "-o", "out.png"))
    assert code == 0, err
    assert Image.open("out.png").size == (120, 80)
    code, _, err = terminal.type("predict", *arguments(weights, "a.jpg", "b.png", "-o", "drawn"))
    assert code == 0, err
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["a.png", "b.png"]
    code, out, err = terminal.type("predict", *arguments(weights, "a.jpg"), "--json")
    assert code == 0, err
    detections = json.loads(out)["images"][0]["detections"]
    assert {"name", "label", "score", "box"} == set(detections[0])
    assert all(0 <= d["box"][0] <= d["box"][2] <= 120 and 0 <= d["box"][1] <= d["box"][3] <= 80 for d in detections)


def test_a_broken_image_is_one_line(terminal: Terminal, weights: Path) -> None:
    Path("broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    code, _, err = terminal.type("predict", *arguments(weights, "broken.jpg"))
    assert code == 2
    assert err.startswith("error: broken.jpg: cannot be read as an image")


def test_two_images_need_a_folder(terminal: Terminal, weights: Path) -> None:
    assert terminal.type("predict", *arguments(weights, "a.jpg", "b.jpg", "-o", "out.png"))[0] == 2
    assert terminal.type("predict", *arguments(weights, "x/a.jpg", "y/a.jpg", "-o", "out"))[0] == 2


def test_labels_stay_inside_small_images() -> None:
    picture = Image.new("RGB", (20, 12), "black")
    objects = [{"name": "a very long class name", "label": 3, "score": 0.9, "box": [15.0, 0.0, 20.0, 12.0]}]
    drawn = draw(picture, objects)
    assert drawn.size == picture.size
    assert drawn.getcolors() != picture.getcolors()


def test_convert_writes_our_file(terminal: Terminal, weights: Path) -> None:
    settings = [part for pair in TINY for part in ("--set", pair)]
    command = ["convert", str(weights), "--model", "deformable_detr_tiny", "--to", "ours.safetensors", *settings]
    code, out, err = terminal.type(*command, "--json")
    assert code == 0, err
    assert json.loads(out)["tensors"] > 50
    Path("cut.pth").write_bytes(weights.read_bytes()[:1000])
    code, _, err = terminal.type("convert", "cut.pth", "--model", "deformable_detr_tiny", *settings)
    assert code == 2
    assert err.startswith("error: ")


def test_names_of_classes_come_with_our_weights(terminal: Terminal) -> None:
    """No data folder is asked for, and nobody has to say how many classes there are."""
    options = {name: int(value) for name, value in (pair.split("=") for pair in TINY)}
    detector = models.create("deformable_detr_tiny", num_classes=2, **options)
    models.save_checkpoint(detector, "ours.safetensors", {}, ["red cell", "white cell"])
    Image.new("RGB", (120, 80), "gray").save("a.png")
    code, out, err = terminal.type("predict", *arguments(Path("ours.safetensors"), "a.png"), "--json")
    assert code == 0, err
    detections = json.loads(out)["images"][0]["detections"]
    assert {each["name"] for each in detections} == {"red cell", "white cell"}
