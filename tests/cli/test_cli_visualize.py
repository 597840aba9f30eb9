"""`detrbench visualize` from weights to files, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image
from terminal import Terminal, tiny_weights

OPTIONS = ["hidden_dim=32", "ffn_dim=32", "num_queries=8", "num_encoder_layers=2", "num_decoder_layers=2"]
SETTINGS = [part for pair in OPTIONS for part in ("--set", pair)]
KEYS = ["attention", "detections", "paths", "sampling", "tokens"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights("sparse_detr_tiny", OPTIONS, tmp_path_factory.mktemp("weights"))


def arguments(weights: Path, *more: str) -> list[str]:
    return ["visualize", "sparse_detr_tiny", *more, "--checkpoint", str(weights), "--device", "cpu", *SETTINGS]


def test_a_folder_of_pictures_and_their_page(terminal: Terminal, weights: Path) -> None:
    Image.new("RGB", (64, 48), "gray").save("a.jpg")
    code, out, err = terminal.type(*arguments(weights, "a.jpg", "-o", "out", "--threshold", "0"), "--json")
    assert code == 0, err
    assert sorted(path.name for path in Path("out").iterdir()) == [*(f"a-{key}.png" for key in KEYS), "index.html"]
    found = json.loads(out)["pictures"]
    assert sorted(each["key"] for each in found) == KEYS
    assert all(Path(each["file"]).is_file() and each["alt"] for each in found)
    html = Path("out/index.html").read_text()
    assert html.count('src="data:image/png;base64,') == 5
    assert "a.jpg" in html
    assert str(weights) in html

    # The page alone, from another run: the same to the byte.
    code, out, err = terminal.type(*arguments(weights, "a.jpg", "-o", "one.html", "--threshold", "0"))
    assert code == 0, err
    assert str(Path("one.html").resolve()) in out
    assert Path("one.html").read_text() == html
    assert not list(Path().glob("*-tokens.png"))


def test_without_weights_it_refuses(terminal: Terminal) -> None:
    Image.new("RGB", (64, 48)).save("a.jpg")
    code, _, err = terminal.type("visualize", "sparse_detr_tiny", "a.jpg")
    assert code == 2
    assert err.startswith("error: sparse_detr_tiny: random weights")
    assert "--checkpoint" in err
    assert not Path("pictures").exists()
    Path("cell").mkdir()
    Path("cell/cell.yaml").write_text("id: x\n")
    code, _, err = terminal.type("visualize", "cell", "a.jpg")
    assert (code, "no trained weights" in err) == (2, True)


def test_broken_images_are_told_before_anything_is_done(terminal: Terminal, weights: Path) -> None:
    Image.new("RGB", (64, 48)).save("a.jpg")
    Path("broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    code, _, err = terminal.type(*arguments(weights, "a.jpg", "broken.jpg"))
    assert (code, err.startswith("error: broken.jpg: cannot be read as an image")) == (2, True)
    assert terminal.type(*arguments(weights, "nowhere.jpg"))[0] == 2
    assert not Path("pictures").exists()


def test_files_that_would_collide(terminal: Terminal, weights: Path) -> None:
    code, _, err = terminal.type(*arguments(weights, "x/a.jpg", "y/a.jpg", "-o", "out"))
    assert (code, "two images" in err) == (2, True)
    Path("file.txt").write_text("mine")
    code, _, err = terminal.type(*arguments(weights, "a.jpg", "-o", "file.txt"))
    assert code == 2
    assert Path("file.txt").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_place_that_cannot_be_written(terminal: Terminal, weights: Path) -> None:
    Image.new("RGB", (64, 48)).save("a.jpg")
    Path("locked").mkdir(mode=0o500)
    code, _, err = terminal.type(*arguments(weights, "a.jpg", "-o", "locked/out"))
    assert (code, "cannot be written" in err) == (4, True)
