"""All protocols of a cell from one forward, and what was detected kept beside the record."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detrbench import cli
from detrbench.measure import detections, protocols, scoring
from detrbench.models.detector import Detector
from detrbench.run import work
from detrbench.suite import loading

SUITE = """\
name: kept
title: A detector that was hardly trained
protocols: [PROTOCOLS]
variants: [{id: plain, model: deformable_detr_tiny}]
scales:
  smoke:
    {data: shapes, num_train: 2, num_val: 3, image_size: 96, epochs: 1, batch_size: 2, eval_every_epochs: 5,
     model: {width: 8, hidden_dim: 32, num_heads: 4, ffn_dim: 32, num_queries: 50, num_encoder_layers: 1,
             num_decoder_layers: 1}}
measure: [accuracy]
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the suite under these protocols and returns the images that went through a detector in eval mode."""
    monkeypatch.chdir(tmp_path)
    seen: list[int] = []
    forward = Detector.forward

    def counted(self: Any, images: Any, *rest: Any, **more: Any) -> Any:
        seen.append(0 if self.training else len(images))
        return forward(self, images, *rest, **more)

    monkeypatch.setattr(Detector, "forward", counted)

    def once(named: str, *more: str) -> int:
        seen.clear()
        (tmp_path / "kept.yaml").write_text(SUITE.replace("PROTOCOLS", named))
        assert cli.main(["run", "kept.yaml", *more]) == 0
        return sum(seen)

    return once


def only_cell(tmp_path: Path) -> Path:
    (cell,) = (tmp_path / "results" / "kept" / "smoke" / "cells").iterdir()
    return cell


def test_one_forward_for_all_protocols_and_none_for_a_further_one(tmp_path: Path, run: Callable[..., int]) -> None:
    assert run("paper_top100") == 6  # 3 after the last epoch of training, 3 here
    cell = only_cell(tmp_path)
    first = json.loads((cell / "accuracy.json").read_text())["records"]
    assert run("paper_top100, paper_top300") == 0  # scored from what is kept
    second = json.loads((cell / "accuracy.json").read_text())["records"]
    assert set(second) == {"common", "paper_top100", "paper_top300"}
    assert (second["common"], second["paper_top100"]) == (first["common"], first["paper_top100"])
    assert second["paper_top300"]["stats"] == second["common"]["stats"]
    assert run("paper_top100, dac") == 3  # NMS is applied before the best 300 are chosen: not from these
    assert set(json.loads((cell / "accuracy.json").read_text())["records"]) == {"common", "paper_top100", "dac"}
    assert run("paper_top100", "--fresh") == 6


def test_the_kept_file_is_what_was_scored(tmp_path: Path, run: Callable[..., int]) -> None:
    run("paper_top100")
    cell = only_cell(tmp_path)
    results = json.loads(gzip.decompress((cell / "detections.json.gz").read_bytes()))
    assert len(results) == 3 * 300  # of 50 queries x 12 classes
    assert set(results[0]) == {"image_id", "category_id", "bbox", "score"}
    (planned,) = loading.load("kept.yaml").cells("smoke")
    dataset, common = work.dataset_of(planned.settings.data_spec, "val"), protocols.get("accuracy")
    found = detections.Detections.of(results)
    record = json.loads((cell / "accuracy.json").read_text())["records"]["common"]
    assert scoring.evaluate(found, dataset, common).record.stats == record["stats"]
    best = found.best(100)
    assert [best.image_ids.tolist().count(image) for image in dataset.image_ids] == [100] * 3


def test_detections_of_another_key_or_cut_short_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "detections.json.gz"
    found = detections.Detections.of(
        [{"image_id": n, "category_id": 1, "bbox": [n / 3, 0, 1, 2], "score": n / 7} for n in range(5)]
    )
    detections.write(path, found, "abc")
    read = detections.read(path, "abc")
    assert read is not None
    assert read.results() == found.results()
    assert detections.read(path, "abd") is None
    assert detections.read(path, "ab") is None
    assert detections.read(tmp_path / "none", "abc") is None
    whole = path.read_bytes()
    for end in (0, 5, 30, len(whole) - 9, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert detections.read(path, "abc") is None
    detections.write(path, found, "abc")
    assert path.read_bytes() == whole
    assert [each.name for each in tmp_path.iterdir()] == ["detections.json.gz"]
