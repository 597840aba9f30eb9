"""DAC-DETR: both decoders' outputs, the assignment, the losses and gradients, and that inference pays for nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_files import batch_of, golden, relative_gap
from torch.utils.flop_counter import FlopCounterMode
from training_goldens import (
    LOGGED,
    Training,
    check_gradients,
    check_matching,
    check_noised,
    check_trains,
    fixed_random,
    random_batch,
    recorded,
    tiny,
)

from detrbench.errors import UsageError
from detrbench.models.assignment import assign, matching_scores
from detrbench.models.collaborative import MOST_POSITIVES, CollaborativeLoss
from detrbench.models.denoising import NoDenoising
from detrbench.models.losses import box_quality, ranks
from detrbench.models.matcher import Matched, Unmatched, match, stacked
from detrbench.models.targets import Objects

NAME = "dac_r50_deformplus_cdn_ice_ep12"


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return Training(NAME, tmp_path_factory.mktemp("weights"))


def renamed(unweighted: dict[str, float], denoising: bool) -> dict[str, float]:
    """Officially the C-decoder's losses have no suffix, and the O-decoder's `_one2one`."""
    losses = {}
    for name, value in unweighted.items():
        if name.startswith((*LOGGED, "cardinality_error")) or ("_dn" in name and not denoising):
            continue
        if name.endswith("_one2one"):
            losses[name.removesuffix("_one2one")] = value
        else:
            losses[name if name.endswith("_enc") else f"{name}_cdecoder"] = value
    return losses


def check_losses(training: Training, losses: dict[str, Any], section: dict[str, Any], denoising: bool) -> None:
    expected = renamed(section["unweighted"], denoising)
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-8, abs=1e-9)
    weights = {name: weight for name, weight in section["weights"].items() if weight is not None}
    assert {name: training.detector.criterion.weight(name) for name in losses} == renamed(weights, denoising)
    assert training.detector.criterion.total(losses).item() == pytest.approx(section["weighted_total"], rel=1e-8)


@pytest.mark.full
def test_both_decoders(training: Training) -> None:
    detector = training.detector.eval()
    for case in golden(NAME)["cases"].values():
        images, masks = batch_of(case)
        with without_denoising(detector), torch.no_grad():
            out = detector(images, masks, targets=training.targets[: len(images)], outputs="all")
            alone = detector(images, masks)
        second = out.auxiliary.layers[-1]
        for key, ours in (
            ("pred_logits", out.pred_logits),
            ("pred_boxes", out.pred_boxes),
            ("pred_logits", alone.pred_logits),
            ("pred_logits_cdecoder", second.logits),
            ("pred_boxes_cdecoder", second.boxes),
        ):
            assert relative_gap(ours, case[key]["first8"]) < 1e-8, key
            assert float(ours.sum()) == pytest.approx(case[key]["sum"], rel=1e-8)


class without_denoising:  # noqa: N801
    """Takes the denoising out of a detector for a while."""

    def __init__(self, detector: Any) -> None:
        self.detector, self.denoising = detector, detector.denoising

    def __enter__(self) -> None:
        self.detector.denoising = NoDenoising(None)  # type: ignore[arg-type]

    def __exit__(self, *_: object) -> None:
        self.detector.denoising = self.denoising


@pytest.mark.full
def test_losses_matching_and_gradients_without_denoising(training: Training) -> None:
    detector, section = training.detector.train(), training.golden
    with without_denoising(detector):
        out = detector(training.images, training.masks, targets=training.targets)
    losses = detector.criterion(out, training.targets)
    check_losses(training, losses, section["losses"], denoising=False)
    proposals = {label: images for label, images in section["matching"].items() if label.startswith("enc")}
    objectness = [{**target, "labels": torch.zeros_like(target["labels"])} for target in training.targets]
    check_matching(out, objectness, proposals)
    check_matching(out, training.targets, {k: v for k, v in section["matching"].items() if k not in proposals})
    check_assignment(out, training.targets, section["one_to_many"])
    check_quality(out, training.targets, section["iou_aware_quality"])
    check_gradients(training, losses)


def layer_of(label: str) -> int:
    return int(label.removeprefix("layer_").split("(")[0])


def answers(out: Any, targets: list[dict[str, torch.Tensor]]) -> Matched:
    """Who answers for what in the C-decoder."""
    objects = Objects.of(targets, out.pred_boxes)
    return CollaborativeLoss(0.4, 6).answers(stacked(out.layers), stacked(out.auxiliary.layers), objects)


def check_assignment(out: Any, targets: list[dict[str, torch.Tensor]], section: dict[str, Any]) -> None:
    ours = answers(out, targets)
    scores = matching_scores(stacked(out.layers).boxes, ours.prediction.logits, ours.objects)
    for label, layer in section.items():
        index = layer_of(label)
        parts = (each[index].split(ours.objects.counts) for each in (ours.query, ours.present, scores))
        for query, present, score, expected in zip(*parts, layer["images"]):
            assert query[present].tolist() == expected["query_order_as_returned"]
            assert present.nonzero()[:, 0].tolist() == expected["gt_order_as_returned"]
            for row in expected["score_rows_top8"]:
                assert score[row["gt"], row["queries"]].tolist() == pytest.approx(row["scores"], rel=1e-8)
                assert float(score[row["gt"]].sum()) == pytest.approx(row["row_sum"], rel=1e-8)


def check_quality(out: Any, targets: list[dict[str, torch.Tensor]], section: dict[str, Any]) -> None:
    many = answers(out, targets)
    (lone,) = match([Unmatched(stacked(out.layers), many.objects)])
    for label, recorded_layer in section.items():
        for matched, key in ((many, "C one-to-many"), (lone, "O one-to-one")):
            quality = box_quality(matched)
            present = matched.present[layer_of(label)]
            expected = recorded_layer[key]["t_before_rank_weight"]
            found = quality[layer_of(label)][present].tolist()
            if key.startswith("C"):
                assert found == pytest.approx(expected, rel=1e-8)
                assert ranks(quality, matched.present)[layer_of(label)][present].tolist() == recorded_layer[key]["rank"]
            else:  # recorded in the order of the queries
                assert sorted(found) == pytest.approx(sorted(expected), rel=1e-8)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["const", "pattern"])
def test_losses_with_denoising(kind: str, training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    section = training.golden["denoising"][kind]
    training.detector.train()
    with fixed_random(kind, monkeypatch), torch.no_grad():
        out, losses = training.run(denoising=True)
    check_noised(training, out.queries, section)
    check_losses(training, losses, section["losses_with_denoising_on"], denoising=True)


@pytest.mark.parametrize("count", [40, 120])
def test_assignment_of_made_up_outputs(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = recorded(NAME)["one_to_many_synthetic"][f"Q{count}"]
    q = torch.arange(count, dtype=torch.float64)
    boxes = [0.3 + 0.05 * q / count, 0.4 + 0.02 * (q % 5) / 5, 0.2 + 0.05 * (q % 7) / 7, torch.full_like(q, 0.3)]
    logits = torch.sin(0.1 * q[:, None] + 0.3 * torch.arange(91, dtype=torch.float64))
    target = {
        "labels": torch.tensor([1, 17]),
        "boxes": torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.35, 0.42, 0.25, 0.3]], dtype=torch.float64),
    }
    in_order = torch.arange(count, 0, -1.0)
    monkeypatch.setattr(torch, "rand_like", lambda like, **options: in_order.expand(like.shape).clone())
    objects = Objects.of([target], q)
    scores = matching_scores(torch.stack(boxes, -1)[None, None], logits[None, None], objects)
    query, present = (each[0] for each in assign(scores, objects, 0.4, 6, MOST_POSITIVES))
    number = present.nonzero()[:, 0]
    assert query[present].tolist() == expected["queries"]
    assert number.tolist() == expected["gts"]
    assert scores[0, number, query[present]].tolist() == pytest.approx(expected["scores"], rel=1e-8)


@pytest.mark.parametrize(
    ("scores", "top", "expected"),
    [
        ([[0.1, 0.2, 0.3]], 6, [(2, 0)]),  # the best one, however low
        ([[0.5, 0.2, 0.6]], 6, [(2, 0), (0, 0)]),
        ([[0.5, 0.45, 0.6]], 2, [(2, 0), (0, 0)]),
        # Query 0 is the best of both objects, counts for the first, and the second is left without a query.
        ([[0.9, 0.1], [0.8, 0.2]], 6, [(0, 0)]),
        ([], 6, []),
    ],
)
def test_assignment_by_hand(scores: list[list[float]], top: int, expected: list[tuple[int, int]]) -> None:
    """Beside two more images: one without an object, one with an object that all queries fit alike: one answers."""
    counts = [len(scores), 0, 1]
    targets = [{"labels": torch.zeros(count).long(), "boxes": torch.zeros(count, 4)} for count in counts]
    width = len(scores[0]) if scores else 3
    rows = torch.tensor([*scores, [0.0] * width])
    query, present = (each[0] for each in assign(rows[None], Objects.of(targets, rows), 0.4, top, MOST_POSITIVES))
    found = [(int(query[number, rank]), int(number)) for number, rank in present.nonzero()]
    assert found[:-1] == expected


@pytest.fixture
def pair() -> tuple[Any, Any]:
    """DAC-DETR and what it is at inference, with the same weights."""
    dac = tiny("dac_detr_tiny", num_encoder_layers=1, num_decoder_layers=3).double().eval()
    plain = tiny("deformable_detr_pp_tiny", num_encoder_layers=1, num_decoder_layers=3).double().eval()
    plain.load_state_dict({name: dac.state_dict()[name] for name in plain.state_dict()})
    return dac, plain


@pytest.mark.parametrize("outputs", ["final", "all"])
def test_inference_pays_for_nothing(pair: tuple[Any, Any], outputs: str) -> None:
    images = random_batch()[0].double()
    counts, results = [], []
    for detector in pair:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            results.append(detector.requires_grad_(False)(images, outputs=outputs))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
    assert results[0].auxiliary is None
    assert torch.equal(results[0].pred_boxes, results[1].pred_boxes)
    assert torch.equal(results[0].pred_logits, results[1].pred_logits)
    assert [sum(p.numel() for p in part.parameters()) for part in pair[0].parts.values()] == [
        sum(p.numel() for p in part.parameters()) for part in pair[1].parts.values()
    ]


def test_second_decoder_leaves_the_first_alone(pair: tuple[Any, Any]) -> None:
    images, targets = random_batch()
    dac, plain = pair
    with torch.no_grad():
        out = dac(images.double(), targets=targets, outputs="all")
        expected = plain(images.double(), outputs="all")
    assert out.auxiliary.noised
    for ours, theirs in zip(out.layers, expected.layers):
        assert torch.allclose(ours.boxes, theirs.boxes, atol=1e-12)
    # Both decoders share the first layer, and part behind it.
    assert torch.equal(out.auxiliary.layers[0].logits, out.layers[0].logits)
    assert not torch.allclose(out.auxiliary.layers[1].logits, out.layers[1].logits)


@pytest.mark.parametrize(
    "create",
    [
        {"name": "dac_detr_tiny"},
        {"name": "dac_detr_tiny", "denoising": "none", "class_loss": "focal"},
        {"name": "dino_tiny", "auxiliary_decoder": "collaborative", "class_loss": "iou_aware"},
        {"name": "deformable_detr_two_stage_tiny", "auxiliary_decoder": "collaborative"},
        {"name": "h_detr_tiny", "auxiliary_decoder": "collaborative", "denoising": "cdn", "one_to_many_queries": 9},
        {"name": "sparse_detr_tiny", "auxiliary_decoder": "collaborative"},
        {"name": "dino_tiny", "one_to_many": "hybrid", "one_to_many_queries": 9, "one_to_many_repeats": 2},
        {"name": "deformable_detr_tiny", "one_to_many": "hybrid", "auxiliary_decoder": "collaborative"},
    ],
    ids=lambda create: "-".join(str(value) for value in create.values()),
)
def test_combinations_train(create: dict[str, Any]) -> None:
    check_trains(tiny(**{"num_encoder_layers": 1, "num_decoder_layers": 2, **create}))


def test_unknown_class_loss_is_refused() -> None:
    with pytest.raises(UsageError, match="class_loss"):
        tiny("dac_detr_tiny", class_loss="fokal")
