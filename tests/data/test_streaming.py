"""Documents read batch by batch hold what `json` reads of them, wherever a chunk ends."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from detrbench.data import streaming

POLYGONS = [[1.5, 2, 3, 4.25, 5, 6], [7, 8, 9, 10, 11, 12]]
RUNS = {"counts": [3, 1, 4], "size": [10, 10]}
COMPRESSED = {"counts": 'a\\"5]0', "size": [10, 10]}
DOCUMENTS: list[Any] = [
    [],
    {},
    [{"a": 1}, {"a": {"b": {}}}, {"a": "}],{ [\u00e9\n"}],
    [1, 2.5, "x", None, True],
    {
        "info": {"n": [1, {"k": 2}]},
        "images": [],
        "x": 12345,
        "annotations": [{"id": n, "s": "\u00fc"} for n in range(30)],
    },
    {"annotations": [{"id": 1, "segmentation": POLYGONS}, {"segmentation": RUNS, "id": 2}, {"segmentation": []}]},
    {"annotations": [{"segmentation": COMPRESSED, "file_name": '"segmentation": [[1]]', "attributes": {"x": [[2]]}}]},
]


def read(text: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for key, batch in streaming.batches(io.BytesIO(text.encode())):
        found.setdefault(key, []).extend(batch)
    return found


def expected(document: Any) -> dict[str, list[Any]]:
    lists = {"": document} if isinstance(document, list) else document
    return {key: value for key, value in lists.items() if isinstance(value, list)}


def without_segmentations(value: Any) -> Any:
    if isinstance(value, list):
        return [without_segmentations(each) for each in value]
    if isinstance(value, dict):
        return {key: 0 if key == "segmentation" else without_segmentations(each) for key, each in value.items()}
    return value


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_nothing_is_lost(monkeypatch: pytest.MonkeyPatch, document: Any, indent: int | None, chunk: int) -> None:
    monkeypatch.setattr(streaming, "CHUNK", chunk)
    for ascii_only in (True, False):
        text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
        assert read(f"\n{text} ") == expected(without_segmentations(document))


@pytest.mark.parametrize("document", DOCUMENTS[1:])
@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_a_file_that_is_cut_short_is_none(monkeypatch: pytest.MonkeyPatch, document: Any, chunk: int) -> None:
    monkeypatch.setattr(streaming, "CHUNK", chunk)
    text = json.dumps(document)
    for end in range(len(text)):
        with pytest.raises(ValueError):  # noqa: PT011
            read(text[:end])


@pytest.mark.parametrize(
    "text", ["", "3", '"x"', "[1] 2", "[1 2]", "{1: 2}", '{"a" 1}', '{"a": 1 "b": 2}', "[1,]", "[,1]"]
)
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        read(text)


def test_a_mistake_is_found_without_reading_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "CHUNK", 100)
    file = io.BytesIO(b'[{"a": 1}, {"a": oops}' + b', {"a": 1}' * 10_000 + b"]")
    with pytest.raises(ValueError):  # noqa: PT011
        list(streaming.batches(file))
    assert file.tell() < 1000
