"""Where each value of a recipe comes from: whoever said it last, as far down as the default."""

from __future__ import annotations

from typing import Any

import pytest
from shipped_suites import cells, load

from detrbench import yaml12
from detrbench.suite import loading as suites

SUITE = """\
name: demo
title: A demonstration
defaults: {num_encoder_layers: 3}
variants:
  - {id: plain, model: h_detr_swin_l}
  - id: "own-{num_queries}"
    model: dino_r50
    options: {source: detrex, dropout: 0.2}
    matrix: {num_queries: [50]}
    scales: {paper: {like: focus_24, lr: 3.0e-4, model: {num_points: 2}}}
scales:
  paper: {like: hdetr_12, epochs: 9, shortest: 640, model: {num_heads: 4}}
"""


@pytest.fixture(scope="module")
def recipes() -> dict[str, dict[str, tuple[Any, str]]]:
    overrides = {"seed": 7, "model.hidden_dim": 128}
    cells = suites.read(yaml12.parse(SUITE, "demo.yaml")).cells("paper", overrides)
    return {cell.id: cell.recipe for cell in cells}


@pytest.mark.parametrize(
    ("row", "key", "value", "source"),
    [
        ("plain", "seed", 7, "--set"),
        ("plain", "epochs", 9, "suite"),
        ("plain", "lr", 2e-4, "scale hdetr_12"),
        ("plain", "clip_norm", 0.1, "default"),
        ("plain", "eval_size", [640, 1333], "suite"),
        ("plain", "train_scales", [384, 410, 435, 461, 486, 512, 538, 563, 589, 614, 640], "suite"),
        ("plain", "crop", True, "scale hdetr_12"),
        ("plain", "model.hidden_dim", 128, "--set"),
        ("plain", "model.num_heads", 4, "suite"),
        ("plain", "model.num_encoder_layers", 3, "suite"),
        ("plain", "model.window_size", 7, "zoo"),
        ("plain", "model.drop_path", 0.2, "default"),
        ("own-50", "lr", 3e-4, "row"),
        ("own-50", "lr_drops", [20.0], "scale focus_24"),
        ("own-50", "epochs", 24, "scale focus_24"),
        ("own-50", "shortest", None, None),
        ("own-50", "model.num_queries", 50, "row"),
        ("own-50", "model.dropout", 0.2, "row"),
        ("own-50", "model.num_points", 2, "row"),
        ("own-50", "model.position_temperature", 20, "scale focus_24"),
        ("own-50", "model.num_heads", 8, "default"),  # the suite's scale has it, which the row's takes the place of
        ("own-50", "model.num_classes", 80, "zoo, source detrex"),
        ("own-50", "model.logit_eps", 1e-3, "zoo, source detrex"),  # the model says it too
        ("own-50", "model.ffn_dim", 2048, "zoo"),
    ],
)
def test_who_said_it_last(
    recipes: dict[str, dict[str, tuple[Any, str]]], row: str, key: str, value: Any, source: str | None
) -> None:
    assert recipes[row].get(key, (None, None)) == (value, source)


def test_every_value_of_every_shipped_row_is_the_one_its_source_says() -> None:
    """No value at its default is said to come from elsewhere than its default, unless somebody wrote it out."""
    known = {"row", "suite", "zoo", "default"}
    for name in suites.names():
        for cell in (cell for scale in load(name).suite.scales for cell in cells(name, scale) if cell.model):
            for key, (value, source) in cell.recipe.items():
                assert source in known or source.startswith(("scale ", "zoo, source ")), (name, cell.id, key)
                if source.startswith("scale ") and not key.startswith("model."):
                    shared = suites.shared_scales()[source.removeprefix("scale ")]
                    assert value == shared.resolved().get(key, value), (name, cell.id, key)
