"""`server`: a web server of the test's own; `here`: it as the hub; `cache`: an empty folder of weights; `small`: a
small catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Server, at, serving
from small_weights import TINY

from detrbench import models
from detrbench.files import cache_folder
from detrbench.weights import catalogue, download, place
from detrbench.weights.catalogue import Entry


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setattr(download, "BLOCK", 64)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as made:
        yield made


@pytest.fixture
def here(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A hub on this machine, in this process."""
    pytest.importorskip("huggingface_hub")
    at(server.url, monkeypatch)
    return server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "ops").symlink_to(cache_folder() / "ops")  # compiled once for all tests
    monkeypatch.setenv("DETRBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(place, "_chosen", None)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def small(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Entry]:
    """`small(name, model, url=...)` enters weights of a small detector; the catalogue holds nothing else."""
    found: dict[str, Entry] = {}

    def enter(name: str, model: str | None = "deformable_detr_tiny", **values: Any) -> Entry:
        known = {"options": TINY if model else {}, "adapter": "detrbench", "ap": {"paper_top100": 1.0}}
        empty = dict.fromkeys(("url", "by_hand", "sha256", "size", "note"))
        source = {"paper": "a paper", "code": "a/repository@1", "licence": "MIT"}
        found[name] = Entry(name=name, model=model, **{**empty, **known, **source, **values})
        return found[name]

    monkeypatch.setattr(catalogue, "entries", lambda: found)
    return enter


@pytest.fixture(scope="session")
def weights_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`weights_of(model)`: a file of random weights of a small detector."""
    folder = tmp_path_factory.mktemp("made")

    def make(model: str = "deformable_detr_tiny", **options: Any) -> Path:
        path = folder / f"{model}{''.join(map(str, options.values()))}.safetensors"
        if not path.exists():
            models.save_checkpoint(models.create(model, **TINY | options), path)
        return path

    return make
