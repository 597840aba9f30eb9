"""Scenes go to a file and come back; broken files are told."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_scenes import scene

from detrbench.pictures import scene as files
from detrbench.pictures.scene import Scene


def same(one: Any, other: Any, tolerance: float) -> None:
    if one is None or isinstance(one, str | dict | int):
        assert one == other
    elif isinstance(one, float | np.ndarray):
        np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float), atol=tolerance)
    else:
        for field in fields(one):
            same(getattr(one, field.name), getattr(other, field.name), tolerance)


@pytest.mark.parametrize("options", [{}, {"annotated": False, "dual": True, "layers": 4}, {"keep": 1.0}])
def test_what_is_read_is_what_was_packed(options: dict[str, Any], tmp_path: Path) -> None:
    made = [scene(**options), scene("image 2", **options)]
    path = tmp_path / "traces.npz"
    path.write_bytes(files.pack(made, "a key"))
    read = files.read(path)
    assert read is not None
    key, found = read
    assert key == "a key"
    for one, other in zip(made, found, strict=True):
        for field in fields(Scene):
            if field.name != "pixels":
                same(getattr(one, field.name), getattr(other, field.name), 0.005)
        assert other.pixels.shape == one.pixels.shape
        assert other.pixels.dtype == np.uint8


def test_equal_scenes_give_equal_bytes() -> None:
    assert files.pack([scene()], "k") == files.pack([scene()], "k")
    assert files.pack([scene()], "k") != files.pack([scene(keep=0.3)], "k")


@pytest.mark.parametrize("content", [None, b"", b"no zip", "cut"])
def test_broken_files_are_none(content: bytes | str | None, tmp_path: Path) -> None:
    path = tmp_path / "traces.npz"
    if content is not None:
        path.write_bytes(files.pack([scene()], "k")[:-200] if content == "cut" else content)  # type: ignore[arg-type]
    assert files.read(path) is None


def test_levels_are_rows_of_cells() -> None:
    levels = scene().by_level(np.arange(60))
    assert [level.shape for level in levels] == [(6, 8), (3, 4)]
    assert levels[0][1, 0] == 8
    assert levels[1][0, 0] == 48
