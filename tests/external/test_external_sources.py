"""Sources as suites name them: which forms there are, what identifies a detector, and why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from detrbench.errors import UsageError
from detrbench.external import sources
from detrbench.files import sha256, write_atomic
from detrbench.weights import place
from detrbench.worker import identity


@pytest.mark.parametrize(
    ("text", "kind", "weights"),
    [
        ("hf:rt_detr", "hf", None),
        ("hf:PekingU/rtdetr_r18vd", "hub", "hf:PekingU/rtdetr_r18vd"),
        ("hf:SenseTime/deformable-detr@main", "hub", "hf:SenseTime/deformable-detr@main"),
        ("torchvision:retinanet_resnet50_fpn", "torchvision", None),
        ("factory:mine.detectors:build", "factory", None),
    ],
)
def test_forms(text: str, kind: str, weights: str | None) -> None:
    found = sources.parse(text)
    assert (found.text, found.kind, found.weights) == (text, kind, weights)


@pytest.mark.parametrize(
    "text", ["", "rt_detr", "hf:", "hf:a/b/c", "hf:../b", "torchvision:", "factory:mine", "factory:a:b:c", "onnx:x"]
)
def test_what_is_no_source_is_told_the_forms(text: str) -> None:
    with pytest.raises(UsageError, match="source: expected hf:ORGANISATION/REPOSITORY, hf:TYPE, torchvision:NAME"):
        sources.parse(text)


def test_options_and_versions_identify_a_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    source = sources.parse("torchvision:retinanet_resnet50_fpn")
    known = sources.identity(source, {"num_classes": 3})
    assert known == sources.identity(source, {"num_classes": 3})
    assert known != sources.identity(source, {"num_classes": 4})
    monkeypatch.setattr(sources, "version", lambda package: "99")
    assert known != sources.identity(source, {"num_classes": 3})


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "version", lambda package: None)
    with pytest.raises(UsageError, match=r"hf:rt_detr: needs the package transformers \(pip install"):
        sources.identity(sources.parse("hf:rt_detr"), {})


def test_a_factory_is_identified_by_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the working folder: with another module of its package it is another detector."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    (tmp_path / "forked").mkdir()
    for name in ("__init__", "models"):
        (tmp_path / "forked" / f"{name}.py").write_text("")
    source, found = sources.parse("factory:forked.models:build"), []
    for text in ("", "WIDTH = 3\n"):
        (tmp_path / "forked" / "models.py").write_text(text)
        identity.sources_of.cache_clear()
        found.append(sources.identity(source, {}))
    assert found[0] != found[1]
    with pytest.raises(UsageError, match="no module 'nowhere' can be imported"):
        sources.identity(sources.parse("factory:nowhere:build"), {})


def test_a_repository_is_identified_by_its_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(place, "_chosen", tmp_path)
    source = sources.parse("hf:someone/theirs")
    with pytest.raises(UsageError, match=r"weights fetch hf:someone/theirs/config.json hf:someone/theirs/p"):
        sources.identity(source, {})
    for name in sources.CONFIGURATION:
        write_atomic(tmp_path / "hub" / "someone" / "theirs" / name, f'{{"for": "{name}"}}')
    found = sources.identity(source, {})
    assert found[-1] == {path.name: sha256(path) for path in sources.configuration(source)}
    assert list(found[-1]) == list(sources.CONFIGURATION)
