"""Pictures are byte-stable, as large as they say, and their texts say what is seen."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from made_up_scenes import LEVELS, scene
from PIL import Image

from detrbench.pictures import gallery, objects, overlay, page, tokens
from detrbench.pictures.gallery import Exhibit
from detrbench.pictures.scene import Objects, Scene
from detrbench.pictures.sheet import Picture, sheet


def without_queries(name: str, keep: float = 0.5) -> Scene:
    """A scene of which only tokens and detections are drawn."""
    return dataclasses.replace(scene(name, keep), encoder=None, paths=None)


def opened(picture: Picture) -> Image.Image:
    return Image.open(io.BytesIO(picture.png))


def by_key(entries: list[Exhibit]) -> dict[str, Exhibit]:
    return {entry.key: entry for entry in entries}


@pytest.fixture(scope="module")
def one() -> dict[str, Exhibit]:
    return by_key(gallery.of_image(scene(dual=True, layers=4), 0.3))


@pytest.fixture(scope="module")
def several() -> dict[str, Exhibit]:
    images = {"dense": 1.0, "half": 0.5}
    found = {name: [scene("image 1", keep), scene("image 2", keep, width=60)] for name, keep in images.items()}
    return by_key(gallery.side_by_side(found, 0.3))


def test_pictures_are_as_large_as_they_say(one: dict[str, Exhibit], several: dict[str, Exhibit]) -> None:
    assert list(one) == ["detections", "tokens", "attention", "sampling", "paths"]
    assert list(several) == ["kept", "attention", "detections", "sampling", "paths"]
    for entry in [*one.values(), *several.values()]:
        image = opened(entry.picture)
        assert image.size == (2 * entry.picture.width, 2 * entry.picture.height)
        assert image.info == {}  # neither a date nor the name of a library
        assert len(image.getcolors(1 << 20)) > 20
        assert entry.caption
        assert entry.picture.source.startswith("data:image/png;base64,")


@pytest.mark.full  # of pictures in a page: tests/report/test_report_pictures.py
def test_equal_scenes_give_equal_bytes_in_another_process(one: dict[str, Exhibit]) -> None:
    program = (
        "import sys, hashlib; sys.path.insert(0, 'tests'); from made_up_scenes import scene; "
        "from detrbench.pictures import gallery; "
        "print(*(hashlib.sha256(e.picture.png).hexdigest() for e in gallery.of_image(scene(dual=True, layers=4), .3)));"
        "sys.exit(1 if 'torch' in sys.modules else 0)"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.split() == [hashlib.sha256(entry.picture.png).hexdigest() for entry in one.values()]


def test_texts_say_what_is_seen(one: dict[str, Exhibit], several: dict[str, Exhibit]) -> None:
    assert one["tokens"].picture.alt.startswith("image 1: 30 of 60 tokens kept by any encoder layer.")
    assert "layers 1 to 2:" in one["tokens"].picture.alt
    assert "layers 3 to 4:" in one["tokens"].picture.alt
    assert "attend to each other" in one["tokens"].picture.alt
    assert "dense: 60 of 60 tokens kept; half: 30 of 60 tokens kept" in several["kept"].picture.alt
    # Of two discs one is found; the star is where the other disc is; the third box has too low a score.
    assert "1 of 2 objects found, 1 false detection" in one["detections"].picture.alt
    assert "1 of 9 queries end on the object (after each layer: 2, 1)" in one["paths"].picture.alt
    assert "3 of 9 queries end on the object (after each layer: 2, 3)" in one["paths"].picture.alt
    assert "% of the decoder's attention" in several["attention"].picture.alt


def test_layers_that_update_the_same_are_one_column() -> None:
    wide, narrow = (tokens.kept_by_level(scene(dual=dual, layers=4)).width for dual in (True, False))
    assert wide > narrow


def test_without_annotations_nothing_is_right_or_wrong() -> None:
    panel = objects.detections(scene(annotated=False), 0.3)
    assert panel.title == "2 detections"
    entries = by_key(gallery.of_image(scene(annotated=False), 0.3))
    assert "false" not in entries["detections"].picture.alt


def test_kept_cells_are_clear_and_the_others_pale() -> None:
    pixels = np.full((48, 64, 3), (200, 30, 30), np.uint8)
    cells = np.zeros(LEVELS[0])
    cells[2, 3] = 1
    image = overlay.cleared(pixels, overlay.spread(cells, pixels.shape))
    assert (image[16:24, 24:32] == pixels[0, 0]).all()
    elsewhere = np.delete(image.reshape(-1, 3), [y * 64 + x for y in range(16, 24) for x in range(24, 32)], axis=0)
    assert (elsewhere == elsewhere[0]).all()
    assert elsewhere[0].min() > 200


def test_matching_takes_each_object_once() -> None:
    box = [0.1, 0.1, 0.5, 0.5]
    found = Objects(np.array([box, box, box]), np.array([1, 0, 0]), np.array([0.9, 0.8, 0.7]))
    truth = Objects(np.array([box]), np.array([0]), np.ones(1))
    hits, met = objects.match(found, truth)
    assert (hits.tolist(), met.tolist()) == ([False, True, False], [True])
    nothing = Objects(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
    assert [len(each) for each in objects.match(nothing, truth)] == [0, 1]
    assert objects.match(found, nothing)[0].tolist() == [False] * 3


def test_many_detectors_go_on_in_the_next_row() -> None:
    images = [without_queries("image 1"), without_queries("image 2")]
    made = by_key(gallery.side_by_side({f"d{i}": images for i in range(6)}, 0.3))["attention"].picture
    one_row = sheet([[tokens.attention(images[0])]]).height
    assert 1.5 * one_row < made.height < 2.5 * one_row
    assert made.alt.count("attention on kept tokens") == 6  # on one image


def test_detectors_that_update_the_same_tokens_share_a_panel() -> None:
    """Lite DETR's table once had nine equal ones."""
    keep = {"dense": 1.0, "half": 0.5, "twin": 0.5, "also": 1.0}
    alike = {name: [without_queries("x", share), without_queries("y", share)] for name, share in keep.items()}
    made = by_key(gallery.side_by_side(alike, 0.3))
    assert made["kept"].picture.alt.count("tokens kept") == 2 * 2
    assert "dense and 1 more: 60 of 60 tokens kept; half and 1 more: 30 of 60 tokens kept" in made["kept"].picture.alt
    assert made["kept"].caption.endswith(
        "Drawn once, as they update the same: dense, also. Drawn once, as they update the same: half, twin."
    )
    assert made["attention"].picture.alt.count("attention on kept tokens") == 2 * 4
    alike["twin"][1] = without_queries("y", 0.4)  # on one image alone
    assert by_key(gallery.side_by_side(alike, 0.3))["kept"].picture.alt.count("tokens kept") == 2 * 3


def test_only_shared_images_are_shown() -> None:
    made = gallery.side_by_side(
        {"a": [without_queries("x"), without_queries("y")], "b": [without_queries("y")], "c": []}, 0.3
    )
    assert by_key(made)["attention"].picture.alt.count("attention on kept tokens") == 2
    assert gallery.side_by_side({"a": [scene("x")], "b": [scene("y")]}, 0.3) == []
    assert gallery.side_by_side({}, 0.3) == []


def test_names_stay_text() -> None:
    hostile = "<script>alert(1)</script>$x_{$\\frac{{7*7}}"
    made = gallery.of_image(scene(hostile), 0.3)
    html = page.render(hostile, {hostile: made})
    assert "<script>" not in html
    assert html.count("<img ") == len(made)
    assert "http" not in html.replace("http://www.w3.org", "")


def test_empty_scenes_can_be_drawn() -> None:
    nothing: dict[str, Any] = {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, int)}
    made = scene()
    empty = Objects(**nothing, scores=np.zeros(0, np.float32))
    bare = dataclasses.replace(made, found=empty, truth=empty, encoder=None, paths=None, scores=made.scores[:0])
    assert list(by_key(gallery.of_image(bare, 0.3))) == ["detections", "tokens", "attention", "sampling"]
    assert list(by_key(gallery.side_by_side({"a": [bare]}, 0.3))) == ["kept", "attention", "detections"]
