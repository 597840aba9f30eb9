"""The steps of a run as they really are, on a few tiny images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detrbench import cli

SUITE = """\
name: gather
title: Queries of a detector that was hardly trained
variants: [{id: dac, model: dac_detr_tiny}]
scales:
  smoke:
    {data: shapes, num_train: 4, num_val: 3, image_size: 96, epochs: 2, batch_size: 2, eval_every_epochs: 2,
     model: {width: 8, hidden_dim: 32, num_heads: 4, ffn_dim: 32, num_queries: 20, num_encoder_layers: 1,
             num_decoder_layers: 2}}
measure: [queries]
"""


def test_queries_are_measured_and_counted_while_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gather.yaml").write_text(SUITE)
    assert cli.main(["run", "gather.yaml"]) == 0
    (cell,) = (tmp_path / "results" / "gather" / "smoke" / "cells").iterdir()
    (record,) = json.loads((cell / "queries.json").read_text())["records"].values()
    assert (record["num_images"], len(record["with_self_attention"]["to_object"])) == (3, 3)
    first, second = json.loads((cell / "training.json").read_text())["records"]["training"]["epochs"]
    assert not any(name.startswith("queries") for name in first)
    for threshold, found in record["per_object"].items():
        assert second[f"queries_above_{threshold}"] == pytest.approx(found["value"])
