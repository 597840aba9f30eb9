"""MS-DETR: second predictions, their assignment and losses, proposals matched by anchors, inference as before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_files import GOLDENS, relative_gap
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from training_goldens import (
    LOGGED,
    Training,
    check_gradients,
    check_matching,
    check_trains,
    random_batch,
    recorded,
    tiny,
)

from detrbench import models
from detrbench.errors import UsageError
from detrbench.models.auxiliary import ProposalLoss
from detrbench.models.matcher import Matched, Unmatched, match
from detrbench.models.mixed_supervision import MixedLoss, best_for_query
from detrbench.models.targets import Objects
from detrbench.models.tokens import Prediction

OFFICIAL = ["ms_r50_300", "ms_r50_pp_300", "ms_r50_300_impl_a"]
TARGETS = random_batch()[1]


@pytest.fixture(scope="module", params=OFFICIAL)
def training(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Training:
    return Training(request.param, tmp_path_factory.mktemp("weights"))


@pytest.mark.full
def test_second_predictions_losses_matching_and_gradients_are_the_official_ones(training: Training) -> None:
    detector, section = training.detector.train(), training.golden
    for module in detector.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.0
    out = detector(training.images, training.masks, targets=training.targets)
    check_second_predictions(out.auxiliary.layers, section["o2m_predictions"])
    losses, said = detector.criterion(out, training.targets), section["losses"]
    expected = {name: value for name, value in said["unweighted"].items() if not name.startswith(LOGGED)}
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-8, abs=1e-9)
    assert {name: detector.criterion.weight(name) for name in losses} == {n: said["weights"][n] for n in expected}
    assert detector.criterion.total(losses).item() == pytest.approx(said["weighted_total"], rel=1e-8)
    check_matching(out, training.targets, section["matching"])
    check_proposals(out, section["proposals_by_anchor"])
    check_assignment(out, section["one_to_many"])
    check_gradients(training, losses)


def check_second_predictions(layers: list[Prediction], section: list[dict[str, Any]]) -> None:
    for layer, expected in zip(layers, section, strict=True):
        if "logits_sum" in expected:
            assert float(layer.logits.sum()) == pytest.approx(expected["logits_sum"], rel=1e-8)
            assert float(layer.boxes.sum()) == pytest.approx(expected["boxes_sum"], rel=1e-8)
        else:
            assert relative_gap(layer.logits, expected["pred_logits"]["first8"]) < 1e-8
            assert relative_gap(layer.boxes, expected["pred_boxes"]["first8"]) < 1e-8


def check_proposals(out: Any, section: list[dict[str, Any]]) -> None:
    objects = Objects.of(TRAINED, out.pred_boxes)
    (matched,) = match([ProposalLoss(class_agnostic=True, by_anchor=True).unmatched(out, objects)])
    found = matched.query[0, :, 0].split(objects.counts)
    assert [queries.tolist() for queries in found] == [image["query_per_target"] for image in section]


TRAINED = [
    {
        "labels": torch.tensor([1, 17, 44]),
        "boxes": torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.6, 0.5, 0.4, 0.6], [0.8, 0.2, 0.1, 0.15]]).double(),
    },
    {"labels": torch.tensor([3]), "boxes": torch.tensor([[0.5, 0.45, 0.5, 0.5]]).double()},
]


def check_assignment(out: Any, section: dict[str, Any]) -> None:
    """Pairs of query and object in every layer."""
    objects = Objects.of(TRAINED, out.pred_boxes)
    for label, layer in section.items():
        second = out.auxiliary.layers[int(label.removeprefix("layer_"))]
        ours = MixedLoss(0.4, 6, 2.0).answers(Prediction(second.logits[None], second.boxes[None]), objects)
        parts = zip(ours.query[0].split(objects.counts), ours.present[0].split(objects.counts), layer["images"])
        for query, present, expected in parts:
            assert pairs(query, present) == set(zip(expected["gts"], expected["queries_worst_first"]))


def pairs(query: Tensor, present: Tensor) -> set[tuple[int, int]]:
    """(object, query) of (T, R)."""
    return {(number, int(query[number, rank])) for number, rank in present.nonzero().tolist()}


@pytest.mark.parametrize("count", [40, 120])
def test_made_up_predictions_are_assigned_and_charged_as_officially(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three overlapping objects share queries: each learns the label of the object that it fits best."""
    section = recorded(OFFICIAL[0])["synthetic"]
    expected, said = section[f"Q{count}"], section["targets"]
    q = torch.arange(count, dtype=torch.float64)
    boxes = [0.3 + 0.05 * q / count, 0.4 + 0.02 * (q % 5) / 5, 0.2 + 0.05 * (q % 7) / 7, torch.full_like(q, 0.3)]
    logits = torch.sin(0.1 * q[:, None] + 0.3 * torch.arange(91, dtype=torch.float64))
    made = Prediction(logits[None, None], torch.stack(boxes, -1)[None, None])
    in_order = torch.arange(count, 0, -1.0)
    monkeypatch.setattr(torch, "rand_like", lambda like, **options: in_order.expand(like.shape).clone())
    target = {"labels": torch.tensor(said["labels"]), "boxes": torch.tensor(said["boxes"], dtype=torch.float64)}
    answers = MixedLoss(0.4, 6, 2.0).answers(made, Objects.of([target], q))
    assert pairs(answers.query[0], answers.present[0]) == set(zip(expected["gts"], expected["queries_worst_first"]))
    assert expected["shared_queries"]
    losses = tiny("ms_detr_tiny").criterion.supervision.one_to_many(answers, 3.0)
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected["losses"], rel=1e-8)


def test_a_shared_query_learns_the_label_of_the_object_that_it_fits_best() -> None:
    """Query 0 answers for both objects of the first image, and for the one of the second, which is another query."""
    targets = [{"labels": torch.zeros(n).long(), "boxes": torch.zeros(n, 4)} for n in (2, 1)]
    scores = torch.tensor([[[0.6, 0.1], [0.8, 0.5], [0.7, 0.9]]])
    query = torch.tensor([[[0, 1], [0, 1], [1, 0]]])
    present = torch.tensor([[[True, False], [True, True], [True, True]]])
    found = best_for_query(scores, Objects.of(targets, scores), query, present)
    assert found.tolist() == [[[False, False], [True, True], [True, True]]]


def test_a_pair_that_is_not_labelled_still_counts_for_its_box() -> None:
    logits, boxes = torch.zeros(1, 1, 2, 3), torch.full((1, 1, 2, 4), 0.5)
    objects = Objects.of([{"labels": torch.tensor([0, 2]), "boxes": torch.full((2, 4), 0.25)}], boxes)
    query, present = torch.zeros(1, 2, 1).long(), torch.ones(1, 2, 1, dtype=torch.bool)
    both = Matched(Prediction(logits, boxes), objects, query, present)
    one = Matched(Prediction(logits, boxes), objects, query, present, torch.tensor([[[True], [False]]]))
    ones = torch.ones(1, 2, 1)
    assert both.spread(ones)[0, 0, 0].tolist() == [1, 0, 1]
    assert one.spread(ones)[0, 0, 0].tolist() == [1, 0, 0]
    assert one.sums(ones).tolist() == both.sums(ones).tolist() == [2]


def test_a_quarter_of_the_queries_counts_at_most() -> None:
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.2]).expand(1, 1, 40, 4)
    objects = Objects.of([{"labels": torch.tensor([0]), "boxes": boxes[0, 0, :1]}], boxes)
    answers = MixedLoss(0.4, 40, 2.0).answers(Prediction(torch.zeros(1, 1, 40, 3), boxes), objects)
    assert int(answers.present.sum()) == 10


def test_anchors_are_matched_whatever_is_predicted_there() -> None:
    anchors = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.7, 0.7, 0.2, 0.2], [0.5, 0.5, 0.3, 0.3]])[None, None]
    objects = Objects.of([{"labels": torch.tensor([0]), "boxes": torch.tensor([[0.7, 0.7, 0.2, 0.2]])}], anchors)
    away = anchors.roll(1, 2)  # the prediction of the last token is the object
    sure = torch.tensor([[[[-9.0], [-9.0], [9.0]]]])
    found = match([Unmatched(Prediction(sure, away), objects, anchors), Unmatched(Prediction(sure, away), objects)])
    assert [int(each.query) for each in found] == [1, 2]
    assert torch.equal(found[0].boxes()[0, 0, 0], away[0, 0, 1])  # what learns is the prediction


# ------------------------------------------------------------------------------------------ the part beside the others


def losses_of(detector: Any) -> tuple[Any, dict[str, Tensor]]:
    images, targets = random_batch()
    out = detector(images.to(next(detector.parameters()).dtype), targets=targets, outputs="all")
    return out, detector.criterion(out, targets)


def test_each_layer_predicts_twice_by_the_same_reference_and_heads() -> None:
    torch.manual_seed(0)
    detector = tiny("ms_detr_tiny", second_prediction="inner", num_decoder_layers=2).double().eval()
    images, targets = random_batch()
    caught: list[Tensor] = []
    for layer in detector.decoder.layers:
        layer.cross_attention_norm.register_forward_hook(lambda module, args, output: caught.append(output))
    with torch.no_grad():
        out = detector(images.double(), targets=targets, outputs="all")
        for index, (state, second) in enumerate(zip(caught, out.auxiliary.layers, strict=True)):
            expected = detector.heads(index, state, out.decoded.reference_points[index])
            assert torch.equal(second.logits, expected.logits)
            assert torch.equal(second.boxes, expected.boxes)


def test_the_network_in_front_of_the_heads_is_each_layers_own() -> None:
    detector = tiny("ms_detr_tiny", num_decoder_layers=2).double().eval()
    images, targets = random_batch()
    layers = []
    for number in range(2):
        with torch.no_grad():
            out = detector(images.double(), targets=targets, outputs="all")
            layers.append([layer.logits for layer in out.auxiliary.layers])
            detector.auxiliary_decoder.feed_forward[1].linear1.weight.mul_(2 + number)
    assert torch.equal(layers[0][0], layers[1][0])
    assert not torch.equal(layers[0][1], layers[1][1])


@pytest.mark.parametrize("base", ["deformable_detr_two_stage_tiny", "dino_tiny", "dn_deformable_detr_tiny"])
@pytest.mark.parametrize("first", [True, False])
def test_the_order_of_the_attentions_is_as_asked(base: str, first: bool) -> None:
    detector = tiny(base, self_attention_first=first, num_decoder_layers=1).eval()
    order: list[str] = []
    for name in ("self_attention", "cross_attention"):
        part = getattr(detector.decoder.layers[0], name)
        part.register_forward_hook(lambda *_, name=name: order.append(name))
    with torch.no_grad():
        detector(random_batch()[0])
    assert order == sorted(["self_attention", "cross_attention"], reverse=first)


def test_class_losses_weigh_what_the_part_says() -> None:
    detector = tiny("ms_detr_tiny", one_to_many_class_weight=3.0)
    _, losses = losses_of(detector)
    weights = {name: detector.criterion.weight(name) for name in losses}
    assert weights["loss_ce_o2m"] == weights["loss_ce_0_o2m"] == 3.0
    assert weights["loss_ce"] == weights["loss_ce_1"] == 1.0
    assert weights["loss_ce_enc"] == 2.0
    assert weights["loss_giou_1_o2m"] == 2.0


def test_noised_and_further_queries_have_no_part_in_it() -> None:
    """Losses of the ordinary queries' second predictions are the same with both groups beside them and without."""
    groups = {"denoising": "cdn", "one_to_many": "hybrid", "one_to_many_queries": 9, "one_to_many_repeats": 2}
    with_groups = tiny("ms_detr_tiny", num_decoder_layers=2, **groups).double().eval()
    alone = tiny("ms_detr_tiny", num_decoder_layers=2).double().eval()
    state = with_groups.state_dict()
    state["queries.embedding"] = state["queries.embedding"][: alone.queries.num_queries]
    alone.load_state_dict({name: value for name, value in state.items() if name in alone.state_dict()})
    (crowded, ours), (single, expected) = losses_of(with_groups), losses_of(alone)
    assert crowded.auxiliary.noised
    assert crowded.auxiliary.one_to_many
    second = {name: loss.item() for name, loss in ours.items() if name.endswith("_o2m")}
    assert len(second) == 6
    assert second == pytest.approx({name: expected[name].item() for name in second}, rel=1e-9)
    assert not single.auxiliary.noised


@pytest.mark.parametrize("outputs", ["final", "all"])
def test_inference_pays_for_nothing(outputs: str) -> None:
    """It costs what the base costs, whose layers have the attentions in the other order."""
    images = random_batch()[0]
    counts, sizes = [], []
    for name, options in (("ms_detr_tiny", {}), ("deformable_detr_pp_tiny", {"class_weight": 1.0})):
        detector = tiny(name, **options).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            out = detector(images, outputs=outputs)
        assert out.auxiliary is None
        counts.append(counter.get_total_flops())
        sizes.append([sum(p.numel() for p in part.parameters()) for part in detector.parts.values()])
    assert counts[0] == counts[1] > 0
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    "create",
    [
        {"name": "ms_detr_tiny"},
        {"name": "ms_deformable_detr_tiny", "second_prediction": "inner", "class_loss": "iou_aware"},
        {"name": "ms_detr_tiny", "self_attention_first": True},
        {"name": "ms_detr_tiny", "second_prediction": "output"},
        {"name": "ms_detr_tiny", "encoder": "sparse", "keep_ratio": 0.3},
        {"name": "dino_tiny", "auxiliary_decoder": "mixed"},
        {"name": "deformable_detr_tiny", "auxiliary_decoder": "mixed"},
        {"name": "dac_detr_tiny", "self_attention_first": False},
    ],
    ids=lambda create: "-".join(str(value) for value in create.values()),
)
def test_combinations_train(create: dict[str, Any]) -> None:
    check_trains(tiny(**{"num_encoder_layers": 1, "num_decoder_layers": 2, **create}))


def test_a_decoder_that_hands_on_no_inner_queries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from detrbench.models import parts

    found = parts.get_part("decoder", "deformable")
    without = parts.Part("decoder", "deformable", found.factory, found.summary, found.options, needs=found.needs)
    monkeypatch.setitem(parts._PARTS, ("decoder", "deformable"), without)
    with pytest.raises(UsageError, match="inner queries"):
        models.resolve("ms_detr_tiny", {})


def test_the_official_files_are_there() -> None:
    assert {path.stem for path in GOLDENS.glob("ms_*.json")} == set(OFFICIAL)
