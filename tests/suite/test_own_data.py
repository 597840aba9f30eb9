"""The suite that `detrbench train` stands for: what follows from the data, the model and what the user says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coco_files import write_coco

from detrbench.data import DataSpec, open_dataset
from detrbench.data.coco import CocoDataset
from detrbench.errors import UsageError
from detrbench.suite import own_data
from detrbench.suite.own_data import OwnData
from detrbench.suite.schema import Scale

CELLS = OwnData(images=292, side=480)


def settings(model: str = "sparse_detr_r50", data: OwnData = CELLS, **chosen: Any) -> Scale:
    """Of the one cell, with what the user chose on top, as a run has it."""
    loaded = own_data.load(own_data.document("cells", model, data, chosen))
    (cell,) = loaded.cells(own_data.SCALE, {**chosen, "path": "there"})
    return cell.settings


@pytest.mark.parametrize(
    ("data", "size", "epochs", "drop"),
    [
        (CELLS, (480, 800), 68, 54),  # 73 steps an epoch
        (OwnData(20, 1000), (800, 1333), 100, 80),
        (OwnData(100_000, 250), (224, 373), 12, 10),
        (OwnData(1, 20), (64, 107), 100, 80),
    ],
)
def test_sizes_and_epochs_follow_from_the_data(data: OwnData, size: tuple[int, int], epochs: int, drop: int) -> None:
    found = settings(data=data)
    assert (found.eval_size, found.epochs, found.lr_drops, found.batch_size) == (size, epochs, [drop], 4)


def test_what_the_user_says_holds_and_the_rest_follows_from_it() -> None:
    found = settings(epochs=30, shortest=320, batch_size=8)
    assert (found.epochs, found.lr_drops, found.eval_every_epochs) == (30, [24], 3)
    assert found.eval_size == (320, 533)
    assert found.batch_size == 8
    assert settings(batch_size=2).epochs == 34  # about as many steps
    assert settings(lr_drops=[7], longest=500).lr_drops == [7]
    assert settings(longest=500).eval_size == (480, 500)


@pytest.mark.parametrize(
    ("model", "chosen", "expected"),
    [
        ("sparse_detr_r50", {}, (2e-4, 2e-5, 0.1, "imagenet")),
        ("dac_detr_r50", {}, (2e-4, 2e-5, 0.1, "imagenet")),
        ("dino_r50", {}, (1e-4, 1e-5, 1.0, "imagenet")),
        ("dn_deformable_detr_r50", {}, (1e-4, 1e-5, 1.0, "imagenet")),
        ("dino_tiny", {}, (1e-4, 1e-4, 1.0, "none")),
        ("dino_tiny", {"lr": 3e-4}, (3e-4, 3e-4, 1.0, "none")),
        ("dino_r50", {"init": "none"}, (1e-4, 1e-4, 1.0, "none")),
        ("dino_r50", {"init_from": "dino.pth"}, (1e-4, 1e-5, 1.0, "none")),
        ("dino_tiny", {"init_from": "dino.pth"}, (1e-4, 1e-5, 1.0, "none")),
    ],
)
def test_rates_and_beginning_are_those_of_the_models_paper(
    model: str, chosen: dict[str, Any], expected: tuple[float, float, float, str]
) -> None:
    found = settings(model, **chosen)
    assert (found.lr, found.lr_backbone, found.lr_sampling, found.init) == expected


def test_a_row_is_called_after_the_model_and_the_options_that_were_set() -> None:
    def id_of(**chosen: Any) -> str:
        return str(own_data.document("cells", "sparse_detr_r50", CELLS, chosen)["variants"][0]["id"])

    assert id_of(epochs=3) == "sparse_detr_r50"
    assert id_of(**{"model.keep_ratio": 0.2}) == "sparse_detr_r50-keep_ratio=0.2"
    long = {f"model.{key}": 64 for key in ("hidden_dim", "ffn_dim", "num_queries", "num_encoder_layers")}
    assert len(id_of(**long)) < 30
    assert id_of(**long) != id_of(**long, **{"model.num_heads": 4})


def test_the_training_set_says_how_large_its_images_are(tmp_path: Path) -> None:
    write_coco(open_dataset(DataSpec("shapes", num_train=5, image_size=64), "train"), tmp_path, "train")
    train = CocoDataset.open(DataSpec("coco", path=tmp_path), "train")
    sides = sorted(min(train[index].image.size) for index in range(5))
    assert OwnData.of(train) == OwnData(5, sides[2])


def test_names_of_suites() -> None:
    assert own_data.name_of(Path("/data/blood cells (2)")) == "blood-cells-2"
    with pytest.raises(UsageError, match="quickstart is a suite of detrbench"):
        own_data.name_of(Path("/data/quickstart"))


@pytest.mark.parametrize(
    ("model", "chosen", "what"),
    [
        ("sparse_detr_r5", {}, "unknown model 'sparse_detr_r5'"),
        ("sparse_detr_r50", {"epochs": "many"}, "--set:1:1: epochs: expected a whole number"),
        ("sparse_detr_r50", {"batch_size": 0}, "^batch_size: expected a whole number, 1 or more, got 0"),
        ("sparse_detr_r50", {"epocs": 3}, "--set epocs: unknown key"),
        ("sparse_detr_r50", {"model.keep": 3}, "keep"),
    ],
)
def test_mistakes(model: str, chosen: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        settings(model, **chosen)


def test_one_detector_is_trained() -> None:
    with pytest.raises(UsageError, match="one detector is trained here"):
        own_data.document("cells", "sparse_detr_r50", CELLS, {"seeds": 2})
