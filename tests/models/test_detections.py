"""From predictions to detections: the best pairs of query and class, and DAC-DETR's suppression of duplicates.

The official evaluation of DAC-DETR takes the 10000 best (query, class) pairs, suppresses within each class at IoU 0.8,
and keeps 300 of what is left.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from detrbench import models
from detrbench.errors import NotFinite
from detrbench.measure import protocols
from detrbench.models.detections import check_finite

SIZE = (100, 200)  # height, width


def output(scores: Any, boxes: Any) -> Any:
    """One image's output with these probabilities (Q, K) and boxes (Q, 4), x1 y1 x2 y2 in pixels of SIZE."""
    corners = torch.as_tensor(boxes, dtype=torch.float64)
    centres = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
    scale = torch.tensor([SIZE[1], SIZE[0]] * 2, dtype=torch.float64)
    logits = torch.as_tensor(scores, dtype=torch.float64).logit()
    return SimpleNamespace(pred_logits=logits[None], pred_boxes=(centres / scale)[None])


def detect(out: Any, top: int, nms: float | None) -> list[tuple[float, int, list[float]]]:
    (found,) = models.postprocess(out, [SIZE], top=top, nms=nms)
    rounded = (found.boxes * 1e6).round() / 1e6
    return list(zip(found.scores.tolist(), found.labels.tolist(), rounded.tolist(), strict=True))


WHOLE, MOST, APART = [0, 0, 100, 50], [0, 0, 90, 50], [100, 50, 200, 100]  # the first two at IoU 0.9


@pytest.mark.parametrize(
    ("scores", "boxes", "top", "nms", "kept"),
    [
        ([[0.9], [0.8], [0.7]], [WHOLE, MOST, APART], 3, 0.8, [(0.9, 0, WHOLE), (0.7, 0, APART)]),
        ([[0.9], [0.8], [0.7]], [WHOLE, MOST, APART], 3, None, [(0.9, 0, WHOLE), (0.8, 0, MOST), (0.7, 0, APART)]),
        # Suppression comes before the cut: the duplicate takes no place.
        ([[0.9], [0.8], [0.7]], [WHOLE, MOST, APART], 2, 0.8, [(0.9, 0, WHOLE), (0.7, 0, APART)]),
        # At IoU 0.9 only above the limit.
        ([[0.9], [0.8]], [WHOLE, MOST], 2, 0.95, [(0.9, 0, WHOLE), (0.8, 0, MOST)]),
        # Within a class only: one query may be two classes, and two queries of different classes share a place.
        ([[0.9, 0.85], [0.1, 0.8]], [WHOLE, MOST], 9, 0.8, [(0.9, 0, WHOLE), (0.85, 1, WHOLE)]),
        ([[0.9, 0.01], [0.02, 0.8]], [WHOLE, MOST], 2, 0.8, [(0.9, 0, WHOLE), (0.8, 1, MOST)]),
        # Boxes of two classes side by side, where one set of coordinates for all classes would let them meet.
        ([[0.9, 0.1], [0.2, 0.8]], [WHOLE, WHOLE], 9, 0.8, [(0.9, 0, WHOLE), (0.8, 1, WHOLE)]),
    ],
)
def test_by_hand(
    scores: list[list[float]], boxes: list[list[float]], top: int, nms: float | None, kept: list[Any]
) -> None:
    found = detect(output(scores, boxes), top, nms)
    assert [score for score, _, _ in found] == pytest.approx([score for score, _, _ in kept])
    assert [rest for _, *rest in found] == [[label, [float(x) for x in box]] for _, label, box in kept]


def greedy(scores: Tensor, boxes: Tensor, top: int, nms: float) -> list[tuple[float, int, list[float]]]:
    """The same by a plain loop over all pairs."""
    pairs = [(float(scores[query, label]), label, query) for query in range(len(boxes)) for label in range(3)]
    kept: list[tuple[float, int, list[float]]] = []
    for score, label, query in sorted(pairs, reverse=True):
        box = boxes[query].tolist()
        if all(other != label or iou(box, place) <= nms for _, other, place in kept):
            kept.append((score, label, box))
    return kept[:top]


def iou(a: list[float], b: list[float]) -> float:
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize("top", [5, 300])
def test_equals_a_plain_loop(top: int) -> None:
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(6, 2, generator=generator, dtype=torch.float64) * 30
    places = torch.cat([corner, corner + 40], 1).repeat(8, 1)  # eight queries at each of six places
    boxes = places + torch.rand(48, 4, generator=generator, dtype=torch.float64) * 6
    scores = torch.rand(48, 3, generator=generator, dtype=torch.float64)
    expected = greedy(scores, boxes, top, 0.8)
    found = detect(output(scores, boxes), top, 0.8)
    assert [(label, box) for _, label, box in found] == [
        (label, pytest.approx(box, abs=1e-5)) for _, label, box in expected
    ]
    assert len(detect(output(scores, boxes), 300, None)) == 144 > len(greedy(scores, boxes, 300, 0.8)) > 18


def test_only_the_best_10000_pairs_are_looked_at() -> None:
    boxes = torch.tensor([WHOLE]).repeat(10_001, 1)
    boxes[-1] = torch.tensor(APART)
    scores = torch.linspace(0.9, 0.1, 10_001, dtype=torch.float64)[:, None]
    assert [box for *_, box in detect(output(scores, boxes), 300, 0.8)] == [WHOLE]
    assert [box for *_, box in detect(output(scores[1:], boxes[1:]), 300, 0.8)] == [WHOLE, APART]


def test_the_protocol_is_the_official_evaluation() -> None:
    dac = protocols.get("accuracy", "dac")
    assert (dac.top, dac.nms) == (300, 0.8)
    assert "NMS within each class at IoU 0.8, then the top 300" in dac.convention
    assert "top 300 scores over queries x classes, no NMS" in protocols.get("accuracy").convention


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["pred_logits", "pred_boxes"])
def test_what_is_no_number_is_refused_and_the_image_named(field: str, value: float) -> None:
    out = output([[0.5], [0.25]], [WHOLE, APART])
    both = SimpleNamespace(pred_logits=out.pred_logits.repeat(2, 1, 1), pred_boxes=out.pred_boxes.repeat(2, 1, 1))
    check_finite(both, ["image 7", "image 9"])
    getattr(both, field)[1, 1, 0] = value
    with pytest.raises(NotFinite, match="image 9: the detector's predictions are not finite"):
        check_finite(both, ["image 7", "image 9"])
    with pytest.raises(NotFinite, match="image 1 of the batch"):
        models.postprocess(both, [SIZE, SIZE])
