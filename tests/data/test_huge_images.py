"""Images of more pixels than memory should hold: refused from their headers, by every reader, with their size."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from detrbench.cli.source import open_image
from detrbench.data import reading
from detrbench.data.reading import MOST_PIXELS, read_image
from detrbench.data.validate import inspect
from detrbench.errors import DataError

LARGE, HUGE = (12_000, 9_000), (30_000, 30_000)  # Pillow alone would decode the first


def write_png(path: Path, size: tuple[int, int]) -> Path:
    """The head of an image of that size, and nothing that could be decoded."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")))
    return path


pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest undoes our own filter
READERS: list[Callable[[Path], object]] = [lambda path: read_image(path, 7), open_image]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("size", "said"), [
    (LARGE, f"12000x9000 pixels: expected at most {MOST_PIXELS:,}"),
    (HUGE, f"far more than {MOST_PIXELS:,} pixels"),
])  # fmt: skip
def test_too_many_pixels_are_not_decoded(
    tmp_path: Path, read: Callable[[Path], object], size: tuple[int, int], said: str
) -> None:
    path = write_png(tmp_path / "a.png", size)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(path) in caught.value.message
    assert said in caught.value.message


@pytest.mark.parametrize("read", READERS)
def test_a_file_longer_than_any_image_is_not_read(
    tmp_path: Path, read: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_png(tmp_path / "a.png", (8, 8))
    monkeypatch.setattr(reading, "MOST_BYTES", 50)
    with pytest.raises(DataError, match="bytes: expected an image of at most 50"):
        read(path)


def test_validate_names_them_in_either_layout(tmp_path: Path) -> None:
    coco, yolo = tmp_path / "coco", tmp_path / "yolo"
    (coco / "annotations").mkdir(parents=True)
    (coco / "val2017").mkdir()
    write_png(coco / "val2017" / "a.png", HUGE)
    images = [{"id": 7, "file_name": "a.png", "width": HUGE[0], "height": HUGE[1]}]
    document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    (coco / "annotations" / "instances_val2017.json").write_text(json.dumps(document))
    for name in ("images", "labels"):
        (yolo / name / "val").mkdir(parents=True)
    (yolo / "data.yaml").write_text("names: [cell]\nval: images/val\n")
    (yolo / "labels" / "val" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    write_png(yolo / "images" / "val" / "a.png", LARGE)
    for root in (coco, yolo):
        (found,) = [each for each in inspect(root).findings if each.kind == "unreadable_image"]
        assert "pixels" in found.message
        assert found.file.endswith("a.png")
