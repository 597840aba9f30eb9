"""Queries per object and their spread, against cases by hand and against plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from training_goldens import random_batch, tiny

from detrbench.data import DataSpec, open_dataset
from detrbench.data.transforms import Eval
from detrbench.measure import accuracy, protocols, queries
from detrbench.measure.protocols.queries import QueriesProtocol
from detrbench.models.assignment import IOU_SHARE
from detrbench.results.records import QueryGathering, to_json

OBJECT = [0.5, 0.5, 0.2, 0.2]
SURE, NEVER = 100.0, -100.0


@pytest.mark.parametrize(
    ("box", "logits", "above"),
    [
        (OBJECT, [NEVER, SURE], [1, 1, 1]),  # 1.0
        (OBJECT, [SURE, NEVER], [1, 0, 0]),  # 0.7 of the boxes alone, which is not above 0.7
        (OBJECT, [SURE, 0.0], [1, 1, 1]),  # 0.85
        ([0.55, 0.5, 0.2, 0.2], [NEVER, SURE], [1, 1, 0]),  # IoU 0.6: 0.72
        ([0.1, 0.1, 0.1, 0.1], [NEVER, SURE], [0, 0, 0]),  # 0.3
    ],
)
def test_one_query_and_one_object(box: list[float], logits: list[float], above: list[int]) -> None:
    target = {"labels": torch.tensor([1]), "boxes": torch.tensor([OBJECT])}
    assert queries.gathered(torch.tensor([box]), torch.tensor([logits]), target, (0.6, 0.7, 0.8)) == above


def test_a_query_counts_for_each_object_it_fits() -> None:
    target = {"labels": torch.tensor([0, 0, 1]), "boxes": torch.tensor([OBJECT] * 3)}
    boxes, logits = torch.tensor([OBJECT] * 4), torch.tensor([[SURE, NEVER]] * 4)
    assert queries.gathered(boxes, logits, target, (0.8, 0.6)) == [8, 12]
    nothing = {"labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}
    assert queries.gathered(boxes, logits, nothing, (0.6,)) == [0]


def test_the_convention_names_the_share() -> None:
    assert f"{IOU_SHARE:g} x IoU + {1 - IOU_SHARE:.1g} x probability" in protocols.get("queries").convention


def test_distances_by_hand() -> None:
    centres = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]])
    assert queries.distance_to_neighbours(centres).tolist() == [3, 4, 3]
    objects = torch.tensor([[0.0, 0.0], [3.0, 2.0]])
    assert queries.distance_to_objects(centres, objects, 2).tolist() == [1.5, 2]
    assert queries.distance_to_objects(centres, objects, 9)[0].item() == pytest.approx(8 / 3)  # there are only three
    assert queries.distance_to_objects(centres, objects[:0], 2).shape == (0,)
    assert queries.distance_to_neighbours(centres[:1]).tolist() == [math.inf]


def test_small_distances_are_not_lost_to_rounding() -> None:
    centres = torch.rand(300, 2, generator=torch.Generator().manual_seed(0))
    centres[7] = centres[3] + 1e-5
    expected = float((centres[7].double() - centres[3].double()).norm())
    assert queries.distance_to_neighbours(centres)[[3, 7]].tolist() == pytest.approx([expected] * 2, rel=1e-3)


@pytest.fixture(scope="module")
def measured() -> tuple[Any, Any, QueryGathering]:
    """A detector with random weights, five images of unequal size, and the record."""
    dataset = open_dataset(DataSpec(kind="shapes", num_val=5, image_size=96), "val")
    detector = tiny("dac_detr_tiny", num_classes=dataset.num_classes, num_encoder_layers=1, num_decoder_layers=3)
    with torch.no_grad():  # fresh heads move no box and are sure of nothing
        for parameter in detector.heads.parameters():
            parameter.normal_(std=0.3)
    return detector, dataset, queries.measure(detector, dataset, protocols.get("queries"), transform=Eval(96, 96))


def looped(detector: Any, dataset: Any, rule: Any) -> dict[str, Any]:
    """The definitions, one image, one object, one query at a time, without ever making use of batches or tensors."""
    counts, objects = np.zeros(3), 0
    near: dict[bool, list[list[float]]] = {True: [], False: []}
    apart: dict[bool, list[list[float]]] = {True: [], False: []}
    for index in range(len(dataset)):
        sample = dataset[index]
        image, target = Eval(96, 96)(sample)
        out = detector(image[None], outputs="all")
        objects += len(target["boxes"])
        for box, label in zip(target["boxes"].tolist(), target["labels"].tolist()):
            for guess, logits in zip(out.pred_boxes[0].tolist(), out.pred_logits[0]):
                score = 0.7 * iou(box, guess) + 0.3 * float(logits[label].sigmoid())
                counts += [score > threshold for threshold in rule.thresholds]
        for mixing, layers in ((True, out.layers), (False, detector.without_self_attention(out))):
            ways = [out.queries.reference_points[0], *(layer.boxes[0] for layer in layers)]
            places = [[(x * sample.width, y * sample.height) for x, y, *_ in way.tolist()] for way in ways]
            diagonal = math.hypot(sample.width, sample.height) / 100
            for x, y, *_ in target["boxes"].tolist():
                middle = (x * sample.width, y * sample.height)
                near[mixing].append(
                    [np.mean(sorted(math.dist(middle, q) for q in way)[: rule.nearest]) / diagonal for way in places]
                )
            apart[mixing].append(
                [
                    np.mean([min(math.dist(q, p) for j, p in enumerate(way) if j != i) for i, q in enumerate(way)])
                    / diagonal
                    for way in places
                ]
            )
    means = {mixing: (np.mean(near[mixing], axis=0), np.mean(apart[mixing], axis=0)) for mixing in (True, False)}
    return {"per_object": counts / objects, "spread": means, "objects": objects}


def iou(a: list[float], b: list[float]) -> float:
    sides = [
        min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2) for i in (0, 1)
    ]
    shared = max(sides[0], 0) * max(sides[1], 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def test_record_equals_the_loop(measured: tuple[Any, Any, QueryGathering]) -> None:
    detector, dataset, record = measured
    detector.eval()
    low = QueriesProtocol("low", "thresholds that random weights reach", thresholds=(0.1, 0.15, 0.2))
    with torch.no_grad():
        expected = looped(detector, dataset, low)
    found = queries.measure(detector, dataset, low, transform=Eval(96, 96))
    values = [found.per_object[name].value for name in ("0.1", "0.15", "0.2")]
    assert values == pytest.approx(expected["per_object"].tolist())
    assert values[0] > values[1] > values[2] > 0
    assert (found.num_images, found.num_objects) == (5, expected["objects"])
    for mixing, spread in ((True, record.with_self_attention), (False, record.without_self_attention)):
        near, apart = expected["spread"][mixing]
        assert [each.value for each in spread.to_object] == pytest.approx(near.tolist(), rel=1e-4)
        assert [each.value for each in spread.to_neighbour] == pytest.approx(apart.tolist(), rel=1e-4)
        assert all(each.low <= each.value <= each.high for each in spread.to_object)
    # Both start at the same place, and part.
    first, second = record.with_self_attention, record.without_self_attention
    assert first.to_object[0] == second.to_object[0]
    assert first.to_neighbour[-1] != second.to_neighbour[-1]


def square(sample: Any, rng: Any) -> Any:
    """Every image at one size, for padding changes what a detector sees."""
    image, target = Eval(96, 96)(sample)
    return torch.nn.functional.interpolate(image[None], (96, 96))[0], target


def test_batches_change_nothing(measured: tuple[Any, Any, QueryGathering]) -> None:
    detector, dataset, _ = measured
    rule = protocols.get("queries")
    one, other = (queries.measure(detector, dataset, rule, batch_size=size, transform=square) for size in (1, 3))
    for way in ("with_self_attention", "without_self_attention"):
        for figure in ("to_object", "to_neighbour"):
            alone, together = (
                [each.value for each in getattr(getattr(record, way), figure)] for record in (one, other)
            )
            assert together == pytest.approx(alone, rel=1e-3)
    assert [each.image_id for each in other.trajectories] == dataset.image_ids[:4]


def test_trajectories(measured: tuple[Any, Any, QueryGathering]) -> None:
    detector, dataset, record = measured
    assert [each.image_id for each in record.trajectories] == dataset.image_ids[:4]
    one = record.trajectories[0]
    sample = dataset[0]
    assert (one.height, one.width) == (sample.height, sample.width)
    with torch.no_grad():
        out = detector(Eval(96, 96)(sample)[0][None], outputs="all")
        without = detector.without_self_attention(out)
    for way, layers in ((one.with_self_attention, out.layers), (one.without_self_attention, without)):
        assert len(way) == 1 + len(layers) == 4
        start = out.queries.reference_points[0, one.queries, :2]
        assert np.array(way[0]) == pytest.approx(start.numpy(), abs=1e-4)
        assert np.array(way[-1]) == pytest.approx(layers[-1].boxes[0, one.queries, :2].numpy(), abs=1e-4)
    # The query that ends nearest to each object is among them.
    for x1, y1, x2, y2 in one.object_boxes:
        middle = torch.tensor([[(x1 + x2) / 2, (y1 + y2) / 2]])
        assert int(torch.cdist(middle, out.pred_boxes[0, :, :2]).argmin()) in one.queries
    assert len(one.object_boxes) <= queries.PICTURED_OBJECTS
    assert to_json(record)["trajectories"][0]["queries"] == one.queries


@pytest.mark.parametrize(
    "name", ["deformable_detr_tiny", "dino_tiny", "dn_deformable_detr_tiny", "dac_detr_tiny", "ms_detr_tiny"]
)
def test_without_self_attention_each_query_is_on_its_own(name: str) -> None:
    detector = tiny(name, num_encoder_layers=1, num_decoder_layers=2).double().eval()
    with torch.no_grad():
        for parameter in detector.heads.parameters():
            parameter.normal_(std=0.3)
    images = random_batch()[0].double()
    with torch.no_grad():
        out = detector(images, outputs="all")
        before = detector.without_self_attention(out)
        out.queries.content = out.queries.content.clone()
        out.queries.content[:, 0] += 1
        after = detector.without_self_attention(out)
        mixed = detector.decoder(out.queries, out.encoded, out.tokens, detector.heads, True)
    for one, other in zip(before, after):
        assert torch.equal(one.boxes[:, 1:], other.boxes[:, 1:])
        assert not torch.equal(one.boxes[:, 0], other.boxes[:, 0])
    assert not torch.equal(mixed.states[-1][:, 1:], out.decoded.states[-1][:, 1:])


def test_counts_of_the_same_forward_as_ap(measured: tuple[Any, Any, QueryGathering]) -> None:
    detector, dataset, record = measured
    gathering = queries.Gathering((0.6, 0.7, 0.8))
    accuracy.collect(
        detector, dataset, [protocols.get("accuracy")], batch_size=2, transform=Eval(96, 96), observe=gathering.add
    )
    expected = {f"queries_above_{name}": estimate.value for name, estimate in record.per_object.items()}
    assert gathering.means() == pytest.approx(expected)


def test_no_objects_at_all() -> None:
    gathering = queries.Gathering((0.6,))
    gathering.objects, gathering.counts = [0, 0], [[0], [0]]
    assert gathering.means() == {"queries_above_0.6": None}
    assert math.isnan(gathering.estimates()["0.6"].value)
