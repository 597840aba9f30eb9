"""Scenes taken from tiny detectors say what their traces say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from detrbench import models
from detrbench.data import Dataset, DataSpec, open_dataset
from detrbench.data.transforms import Eval
from detrbench.measure import pictures, protocols
from detrbench.pictures import queries
from detrbench.pictures.scene import Scene, pack

OPTIONS: dict[str, Any] = {
    **{"hidden_dim": 32, "num_heads": 4, "ffn_dim": 48, "width": 8, "num_queries": 12, "num_classes": 12},
    **{"num_encoder_layers": 3, "num_decoder_layers": 2},
}
SPEC = DataSpec("shapes", num_train=1, num_val=6, image_size=96)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return open_dataset(SPEC, "val")


def created(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    detector = models.create(name, **OPTIONS, **options)
    with torch.no_grad():  # the official start has zeros, with which no box would move
        for parameter in detector.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return detector


def taken(dataset: Dataset, name: str, **options: Any) -> tuple[Any, list[Scene]]:
    detector = created(name, **options)
    return pictures.take(detector, dataset, protocols.get("pictures"), transform=Eval(96, 96))


CASES = {
    "deformable_detr_tiny": {},
    "sparse_detr_tiny": {"keep_ratio": 0.3},
    "focus_detr_tiny": {"keep_ratios": [0.5, 0.3, 0.1], "fine_tokens": 4},
    "salience_detr_tiny": {"layer_ratios": [1.0, 0.6, 0.2], "fine_tokens": 4},
    "lite_dino_tiny": {"high_levels": 2, "high_updates": 2, "blocks": 1},
    "rt_detr_tiny": {"level_points": [2, 1, 3]},
}


@pytest.mark.parametrize("name", CASES)
def test_scene_of_each_encoder(name: str, dataset: Dataset) -> None:
    record, scenes = taken(dataset, name, **CASES[name])
    assert len(scenes) == len(record.image_ids) == 2
    for index, scene in enumerate(scenes):
        tokens = int(scene.levels.prod(1).sum())
        assert scene.attention.shape == (tokens,)
        assert scene.attention.max() == 1
        assert scene.kept.shape[1] == tokens
        assert scene.shares.sum() == pytest.approx(1)
        assert scene.shares @ np.nan_to_num(scene.corr_by_level) == pytest.approx(scene.corr, abs=1e-5)
        on_kept = (scene.attention**2)[scene.ever_kept].sum() / (scene.attention**2).sum()
        assert on_kept == pytest.approx(scene.corr, abs=1e-4)
        assert record.num_kept[index] == scene.ever_kept.sum()
        assert record.num_tokens[index] == tokens
        assert scene.truth is not None
        assert len(scene.truth.boxes) >= 2
        assert scene.decoder.locations.shape[:3] == (len(scene.decoder.boxes), 4, len(scene.levels))
        assert scene.paths is not None
        assert scene.paths.centres.shape == (2, 3, 12, 2)
        assert np.array_equal(scene.paths.centres[0, 0], scene.paths.centres[1, 0])  # both runs start alike
        assert not np.allclose(scene.paths.centres[0], scene.paths.centres[1])
    assert len(pack(scenes, "key")) < 300_000


def test_kept_tokens_of_each_encoder(dataset: Dataset) -> None:
    kept = {name: [s.kept.sum(1).tolist() for s in taken(dataset, name, **CASES[name])[1]] for name in CASES}
    _, (first, _) = taken(dataset, "deformable_detr_tiny")
    assert kept["deformable_detr_tiny"][0] == [first.kept.shape[1]] * 3
    assert len(set(kept["sparse_detr_tiny"][0])) == 1
    focus = kept["focus_detr_tiny"][0]
    assert focus[0] > focus[1] > focus[2] > 0
    salience = kept["salience_detr_tiny"][0]
    assert salience[0] > salience[1] > salience[2] > 0
    high = int(first.levels[2:].prod(1).sum())
    assert kept["lite_dino_tiny"][0] == [high, first.kept.shape[1]]


def test_object_tokens_are_those_of_the_dual_attention(dataset: Dataset) -> None:
    for scene in taken(dataset, "focus_detr_tiny", **CASES["focus_detr_tiny"])[1]:
        assert scene.object_tokens.sum(1).tolist() == [4, 4, 4]
        assert not (scene.object_tokens & ~scene.kept).any()


def test_images_with_several_objects_come_first(dataset: Dataset) -> None:
    counts = dict.fromkeys(dataset.image_ids, 0)
    for annotation in dataset.coco_ground_truth()["annotations"]:
        counts[annotation["image_id"]] += 1
    several = [index for index, image_id in enumerate(dataset.image_ids) if counts[image_id] >= 2]
    assert pictures.choose(dataset, 2) == several[:2]
    assert pictures.choose(dataset, 100) == list(range(6))


def test_best_query_of_an_object_is_where_its_box_is(dataset: Dataset) -> None:
    scene = pictures.look(
        created("deformable_detr_tiny"), dataset[0], {}, protocols.get("pictures"), "x", Eval(96, 96), annotated=False
    )
    assert scene.truth is None
    assert scene.encoder is not None
    middles = (scene.encoder.boxes[:, :2] + scene.encoder.boxes[:, 2:]) / 2
    side = 1 / scene.levels.max()
    assert (np.abs(scene.encoder.centres - middles) <= side).all()  # all tokens are updated: one is always near
    assert scene.encoder.weights.sum((2, 3)) == pytest.approx(1, abs=1e-5)


def test_encoder_may_see_levels_that_the_decoder_does_not(dataset: Dataset) -> None:
    _, (scene, _) = taken(dataset, "lite_dino_tiny", high_levels=3, low_updates=False)
    assert scene.encoder is not None
    assert (scene.encoder.locations.shape[2], scene.decoder.locations.shape[2], len(scene.levels)) == (4, 3, 3)
    colours, words = zip(*queries.levels(scene, scene.encoder), strict=True)
    assert words[0] == "finest level"
    assert colours[1:] == tuple(colour for colour, _ in queries.levels(scene, scene.decoder))
