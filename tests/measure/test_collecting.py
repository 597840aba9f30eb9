"""From a detector's output to what pycocotools reads, one detection at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detrbench import models
from detrbench.data import Category, Sample, Target
from detrbench.data.transforms import Eval
from detrbench.errors import NotFinite
from detrbench.measure import accuracy, ap_interval, protocols, scoring
from detrbench.measure.detections import Detections
from detrbench.measure.inference import over_images
from detrbench.measure.protocols.accuracy import AccuracyProtocol

Detection = dict[str, Any]
COMMON = protocols.get("accuracy", "common")
SURE = 20.0


class OneBox:
    """Two images, 80 wide and 40 high; label 0 is category 7, label 1 none, label 2 category 9."""

    image_ids, num_classes = [3, 5], 3
    categories = [Category(7, "seven"), Category(9, "nine")]  # noqa: RUF012

    def __len__(self) -> int:
        return 2

    @property
    def sizes(self) -> Any:
        return np.array([[80, 40]] * 2)

    def __getitem__(self, index: int) -> Any:
        none = np.zeros(0)
        target = Target(self.image_ids[index], none.astype(int), none.reshape(0, 4), none.astype(bool), none)
        return Sample(Image.new("RGB", (80, 40)), target, 40, 80)

    def to_category_id(self, label: int) -> int:
        return {0: 7, 1: 8, 2: 9}[label]

    def coco_ground_truth(self) -> dict[str, Any]:
        box = {"bbox": [10, 10, 20, 10], "area": 200, "iscrowd": 0}
        return {
            "images": [{"id": image, "width": 80, "height": 40} for image in self.image_ids],
            "annotations": [
                {"id": 1, "image_id": 3, "category_id": 7, **box},
                {"id": 2, "image_id": 5, "category_id": 9, **box},
            ],
            "categories": [{"id": 7, "name": "seven"}, {"id": 9, "name": "nine"}],
        }


class Constant(nn.Module):
    """Says the same of every image: two queries at nearly one place, label by label."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.logits = torch.tensor(logits)
        self.batches: list[tuple[int, bool]] = []

    def forward(self, images: Tensor, masks: Tensor | None) -> SimpleNamespace:
        assert torch.is_inference_mode_enabled()
        assert not self.training
        self.batches.append((len(images), masks is None))
        boxes = torch.tensor([[0.25, 0.375, 0.25, 0.25], [0.26, 0.375, 0.25, 0.25]])
        count = len(images)
        return SimpleNamespace(pred_logits=self.logits.expand(count, -1, -1), pred_boxes=boxes.expand(count, -1, -1))


def collect(logits: list[list[float]], protocol: AccuracyProtocol = COMMON, **more: Any) -> list[Detection]:
    found = accuracy.collect(Constant(logits), OneBox(), [protocol], transform=Eval(40, 80), **more)
    return found[protocol.name].results()


def test_a_detection_is_in_pixels_of_the_stored_image_with_the_id_of_its_category() -> None:
    found = collect([[SURE, -SURE, -SURE], [-SURE, -SURE, 0.0]])
    best = [each for each in found if each["score"] > 0.9]
    assert [(each["image_id"], each["category_id"]) for each in best] == [(3, 7), (5, 7)]
    assert best[0]["bbox"] == pytest.approx([10, 10, 20, 10])
    other = [each for each in found if each["category_id"] == 9 and each["score"] == pytest.approx(0.5)]
    assert other[0]["bbox"] == pytest.approx([10.8, 10, 20, 10])


def test_labels_without_a_category_are_left_out() -> None:
    assert {each["category_id"] for each in collect([[SURE] * 3] * 2)} == {7, 9}


def test_the_protocol_says_how_many_and_whether_boxes_of_a_class_suppress_each_other() -> None:
    both = [[SURE, -SURE, -SURE], [SURE - 1, -SURE, -SURE]]

    def sure(protocol: AccuracyProtocol) -> int:
        return sum(each["score"] > 0.9 for each in collect(both, protocol))

    assert sure(COMMON) == 4
    assert sure(AccuracyProtocol("one", "", 1)) == 2
    assert sure(AccuracyProtocol("nms", "", 300, nms=0.8)) == 2
    assert sure(AccuracyProtocol("nms", "", 300, nms=0.99)) == 4


def test_protocols_that_share_a_forward_keep_as_many_as_each_says() -> None:
    detector, one = Constant([[SURE, -SURE, 0.0]] * 2), AccuracyProtocol("one", "", 1)
    found = accuracy.collect(detector, OneBox(), [COMMON, one], transform=Eval(40, 80))
    assert {name: np.bincount(each.image_ids)[[3, 5]].tolist() for name, each in found.items()} == {
        "common": [4, 4],  # two queries, each of two labels that are categories
        "one": [1, 1],
    }


def test_batches_modes_and_progress() -> None:
    detector, told = Constant([[SURE, 0.0, 0.0]] * 2).train(), []
    one = accuracy.collect(detector, OneBox(), [COMMON], transform=Eval(40, 80), progress=lambda *at: told.append(at))
    both = accuracy.collect(detector, OneBox(), [COMMON], batch_size=2, transform=Eval(40, 80))
    assert one["common"].results() == both["common"].results()
    assert detector.training
    assert detector.batches == [(1, True), (1, True), (2, True)]  # no masks where nothing is padded
    assert told == [(1, 2), (2, 2)]


class Sizes(OneBox):
    """Six images of three sizes in turn, each with its own noise."""

    image_ids = [2, 3, 5, 8, 13, 21]  # noqa: RUF012

    def __len__(self) -> int:
        return 6

    @property
    def sizes(self) -> Any:
        return np.array([[80, 64], [64, 80], [96, 64]] * 2)

    def __getitem__(self, index: int) -> Any:
        width, height = self.sizes[index].tolist()
        pixels = np.random.default_rng(index).integers(0, 255, (height, width, 3), dtype=np.uint8)
        return Sample(Image.fromarray(pixels), super().__getitem__(index).target, height, width)


def test_what_is_evaluated_together_has_one_size_and_the_same_detections() -> None:
    """Padded to a common size it would not: those of 80 x 64 see the border of 96 x 64."""
    torch.manual_seed(0)
    small = {"hidden_dim": 32, "width": 8, "ffn_dim": 48, "num_queries": 5, "num_classes": 3}
    detector, seen = models.create("deformable_detr_tiny", **small), []

    def see(out: Any, batch: Any) -> None:
        seen.append((len(batch.image_ids), bool(batch.masks.any())))

    one, four = (
        accuracy.collect(detector, Sizes(), [COMMON], batch_size=size, transform=Eval(64, 96), observe=see)["common"]  # type: ignore[arg-type]
        for size in (1, 4)
    )
    assert seen == [(1, False)] * 6 + [(2, False)] * 3
    assert one.image_ids.tolist() == four.image_ids.tolist() == np.repeat(Sizes.image_ids, 10).tolist()
    assert one.category_ids.tolist() == four.category_ids.tolist()
    np.testing.assert_allclose(one.boxes, four.boxes, atol=1e-3)
    np.testing.assert_allclose(one.scores, four.scores, atol=1e-6)
    logits: list[Any] = []
    for size in (1, 6):  # the first image alone, and padded to the others
        over_images(
            detector,
            Sizes(),  # type: ignore[arg-type]
            lambda out, batch: logits.append(out.pred_logits[0]),
            batch_size=size,
            transform=Eval(64, 96),
        )
    assert float((logits[0] - logits[6]).abs().max()) > 1e-3


def test_scores_by_hand() -> None:
    """Category 7: found beside a false one of less score. Category 9: the false one ranks first: precision 1/2."""
    found = [
        {"image_id": 3, "category_id": 7, "bbox": [10, 10, 20, 10], "score": 0.9},
        {"image_id": 5, "category_id": 7, "bbox": [10, 10, 20, 10], "score": 0.8},
        {"image_id": 3, "category_id": 9, "bbox": [50, 10, 20, 10], "score": 0.9},
        {"image_id": 5, "category_id": 9, "bbox": [10, 10, 20, 16], "score": 0.8},  # IoU 0.625
    ]
    record = scoring.evaluate(Detections.of(found), OneBox(), COMMON, replicates=20).record  # type: ignore[arg-type]
    assert record.stats["AP50"] == record.ap50.value == pytest.approx((100 + 50) / 2)
    assert record.stats["AP75"] == pytest.approx(100 / 2)
    assert record.stats["AP"] == record.ap.value == pytest.approx((100 + 50 * 3 / 10) / 2)  # at 0.50, 0.55, 0.60
    assert record.per_class == {"seven": pytest.approx(100), "nine": pytest.approx(15)}
    assert record.stats["APS"] == pytest.approx(record.stats["AP"])  # all objects are small
    assert (record.stats["APM"], record.stats["APL"]) == (None, None)


def test_a_hundred_detections_of_a_class_count_in_an_image() -> None:
    good = {"image_id": 3, "category_id": 7, "bbox": [10, 10, 20, 10], "score": 0.1}
    false = [{"image_id": 3, "category_id": 7, "bbox": [50, 10, 20, 10], "score": 0.9}]
    assert scoring.evaluate(Detections.of([*false * 99, good]), OneBox(), COMMON, replicates=2).record.per_class[
        "seven"
    ] == pytest.approx(1)  # type: ignore[arg-type]
    assert (
        scoring.evaluate(Detections.of([*false * 100, good]), OneBox(), COMMON, replicates=2).record.per_class["seven"]
        == 0
    )  # type: ignore[arg-type]


def test_a_false_detection_counts_among_objects_of_its_own_size() -> None:
    """The object is small; a false detection of 60 x 30 pixels is medium and no fault of a detector of small ones."""
    found = [
        {"image_id": 3, "category_id": 7, "bbox": [10, 10, 20, 10], "score": 0.8},
        {"image_id": 3, "category_id": 7, "bbox": [10, 5, 60, 30], "score": 0.9},
    ]
    record = scoring.evaluate(Detections.of(found), OneBox(), COMMON, replicates=2).record  # type: ignore[arg-type]
    assert record.per_class["seven"] == pytest.approx(50)
    assert record.stats["APS"] == pytest.approx(100 / 2)  # of category 9 nothing is found


def matches_of(found: list[Detection]) -> ap_interval.Matches:
    return scoring.score(Detections.of(found), OneBox(), COMMON).matched.of_all_sizes()


def test_resamples_know_ap50_from_ap() -> None:
    """Both objects are found with an IoU of 0.625: AP50 is 100 and AP 30 of whatever images are drawn."""
    box = [10, 10, 20, 16]
    found = [
        {"image_id": 3, "category_id": 7, "bbox": box, "score": 0.8},
        {"image_id": 5, "category_id": 9, "bbox": box, "score": 0.8},
    ]
    drawn = ap_interval.bootstrap(matches_of(found), 20)
    assert drawn.ap50.tolist() == pytest.approx([100] * 20)
    assert drawn.ap.tolist() == pytest.approx([30] * 20)
    half = ap_interval.paired_difference(matches_of(found), matches_of(found[:1]), "ap50")
    whole = ap_interval.paired_difference(matches_of(found), matches_of(found[:1]))
    assert (half.value, whole.value) == (pytest.approx(50), pytest.approx(15))
    assert ap_interval.paired_difference(matches_of(found[:1]), matches_of(found)).value == pytest.approx(-15)
    assert half.se == pytest.approx(100 * whole.se / 30)


def test_a_detector_that_says_no_number_is_not_scored() -> None:
    detector = Constant([[SURE, -SURE, -SURE], [float("nan"), -SURE, -SURE]])
    with pytest.raises(NotFinite, match="image 3: "):
        accuracy.collect(detector, OneBox(), [COMMON], transform=Eval(40, 80))
