"""Small formulas of the detectors against figures worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detrbench.errors import Diverged
from detrbench.models import attention, auxiliary, boxes, losses, matcher, neck, ops, positions
from detrbench.models.criterion import Criterion, LossTerm, layer_losses
from detrbench.models.decoders.deformable import scale_reference_points
from detrbench.models.dimensions import Dimensions
from detrbench.models.losses import supervision
from detrbench.models.matcher import Matched
from detrbench.models.targets import Objects
from detrbench.models.tokens import Prediction, Tokens

DIMENSIONS = Dimensions(
    hidden_dim=16,
    num_heads=4,
    num_levels=2,
    num_points=3,
    ffn_dim=16,
    dropout=0.0,
    num_encoder_layers=1,
    num_decoder_layers=1,
    num_queries=3,
    num_classes=2,
    logit_eps=1e-5,
    key_aware=False,
    further_queries=0,
)
LEFT, RIGHT = [0.2, 0.5, 0.4, 0.4], [0.4, 0.5, 0.4, 0.4]  # 0.0 to 0.4 and 0.2 to 0.6, both 0.3 to 0.7 high
IOU, GIOU = 1 / 3, 1 / 3  # of these two: their hull is 0.6 x 0.4, which is their union
FAR = [0.9, 0.5, 0.2, 0.4]  # 0.8 to 1.0: apart from LEFT by 0.4
GIOU_FAR = 0 - (0.4 - 0.24) / 0.4  # hull 1.0 x 0.4, union 0.16 + 0.08

FOCAL = supervision("focal", 0.0)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def target(labels: list[int], *objects: list[float]) -> dict[str, Tensor]:
    return {"labels": torch.tensor(labels, dtype=torch.long), "boxes": torch.tensor(objects).reshape(-1, 4)}


def objects_of(*targets: dict[str, Tensor], like: torch.dtype = torch.float64) -> Objects:
    return Objects.of(list(targets), torch.zeros(1, dtype=like))


def run_term(term: LossTerm, out: Any, *targets: dict[str, Tensor], num_boxes: float = 1.0) -> dict[str, Tensor]:
    """The losses of one term alone."""
    objects = objects_of(*targets)
    asked = term.unmatched(out, objects)
    matched = None if asked is None else matcher.match([asked])[0]
    found: dict[str, Tensor] = term(out, objects, matched, num_boxes, FOCAL)
    return found


# ------------------------------------------------------------------------------------------------------ boxes


def test_corners_and_back() -> None:
    corners = boxes.cxcywh_to_xyxy(torch.tensor([0.5, 0.25, 0.2, 0.1]))
    assert corners.tolist() == pytest.approx([0.4, 0.2, 0.6, 0.3])
    assert boxes.xyxy_to_cxcywh(corners).tolist() == pytest.approx([0.5, 0.25, 0.2, 0.1])


def test_inverse_sigmoid_is_bounded_on_both_sides() -> None:
    found = boxes.inverse_sigmoid(torch.tensor([-1.0, 0.0, 0.25, 1.0, 2.0], dtype=torch.float64), 1e-3)
    assert found.tolist() == pytest.approx([math.log(1e-3), math.log(1e-3), -math.log(3), math.log(1e3), math.log(1e3)])


@pytest.mark.parametrize(("other", "giou"), [(LEFT, 1), (RIGHT, GIOU), (FAR, GIOU_FAR)])
def test_generalised_iou(other: list[float], giou: float) -> None:
    first, second = (boxes.cxcywh_to_xyxy(torch.tensor([box])) for box in (LEFT, other))
    assert boxes.giou(first, second).item() == pytest.approx(giou, abs=1e-6)


# -------------------------------------------------------------------------------------------------- matching


def focal(probability: float, positive: bool) -> float:
    """Lin et al., equation 5, with alpha 0.25 and gamma 2."""
    if positive:
        return 0.25 * (1 - probability) ** 2 * -math.log(probability)
    return 0.75 * probability**2 * -math.log(1 - probability)


def test_the_cost_of_a_match() -> None:
    """Twice the focal cost of being the object rather than background, five times L1, less twice the GIoU."""
    logits = torch.tensor([[[[logit(0.9), logit(0.3)], [logit(0.2), logit(0.6)]]]])
    prediction = Prediction(logits, torch.tensor([[[LEFT, FAR]]]))
    found = matcher.matching_cost(prediction, objects_of(target([1, 0], RIGHT, LEFT), like=torch.float32))
    expected = [
        [
            2 * (focal(0.3, True) - focal(0.3, False)) + 5 * 0.2 - 2 * GIOU,
            2 * (focal(0.9, True) - focal(0.9, False)) - 2,
        ],
        [
            2 * (focal(0.6, True) - focal(0.6, False)) + 5 * 0.7 - 2 * (-(0.32 - 0.24) / 0.32),
            2 * (focal(0.2, True) - focal(0.2, False)) + 5 * 0.9 - 2 * GIOU_FAR,
        ],
    ]
    np.testing.assert_allclose(found[0].T.numpy(), expected, rtol=1e-5)


def test_the_match_of_least_total_cost_wins() -> None:
    """The greedy choice would give object 0 its nearest query, and the other object nothing near."""
    predicted = torch.tensor([[[[0.30, 0.5, 0.2, 0.2], [0.42, 0.5, 0.2, 0.2], [0.9, 0.9, 0.1, 0.1]]]])
    objects = objects_of(target([0, 1], [0.36, 0.5, 0.2, 0.2], [0.29, 0.5, 0.2, 0.2]))
    asked = matcher.Unmatched(Prediction(torch.zeros(1, 1, 3, 2), predicted), objects)
    found = matcher.match([asked])[0]
    assert found.query.tolist() == [[[1], [0]]]
    assert found.present.all()


def test_each_image_and_layer_and_question_is_matched_on_its_own() -> None:
    """The first layer's queries are those of the second in reverse; the second image has one query near, the third."""
    near, rest = [0.3, 0.5, 0.2, 0.2], [0.9, 0.9, 0.1, 0.1]
    layer = torch.tensor([[near, rest, rest], [rest, rest, near]])
    objects = objects_of(target([0], near), target([]), target([1], near))
    layers = torch.stack([layer, layer.flip(1)])[:, [0, 0, 1]]
    asked = matcher.Unmatched(Prediction(torch.zeros(2, 3, 3, 2), layers), objects)
    last = matcher.Unmatched(Prediction(torch.zeros(1, 3, 3, 2), layers[1:]), objects)
    assert [found.query[..., 0].tolist() for found in matcher.match([asked, last])] == [[[0, 2], [2, 0]], [[2, 0]]]


def test_objects_beyond_the_queries_are_answered_for_by_nobody() -> None:
    """One query, which fits the second object: the first one has no loss."""
    prediction = Prediction(torch.zeros(1, 1, 1, 1).double(), torch.tensor([[[RIGHT]]]).double())
    matched = matcher.match([matcher.Unmatched(prediction, objects_of(target([0, 0], FAR, RIGHT)))])[0]
    assert matched.present.tolist() == [[[False], [True]]]
    found = losses.set_losses(matched, num_boxes=1.0)
    assert found["loss_bbox"].item() == pytest.approx(0, abs=1e-6)
    assert found["loss_ce"].item() == pytest.approx(focal(0.5, True))


def test_predictions_that_are_not_finite_are_not_matched() -> None:
    prediction = Prediction(torch.full((1, 1, 2, 1), math.nan), torch.tensor([[[LEFT, FAR]]]))
    with pytest.raises(Diverged, match="predictions are not finite"):
        matcher.match([matcher.Unmatched(prediction, objects_of(target([0], LEFT)))])


def test_repeated_objects_stand_behind_those_of_their_image() -> None:
    found = objects_of(target([3, 4], LEFT, FAR), target([]), target([5], RIGHT)).repeated(2)
    assert found.labels.tolist() == [3, 4, 3, 4, 5, 5]
    assert (found.image.tolist(), found.slot.tolist()) == ([0, 0, 0, 0, 2, 2], [0, 1, 2, 3, 0, 1])
    assert (found.counts, found.most) == ((4, 0, 2), 4)
    assert found.boxes[:, 0].tolist() == pytest.approx([0.2, 0.9, 0.2, 0.9, 0.4, 0.4])


# ---------------------------------------------------------------------------------------------------- losses


def predicted() -> Matched:
    """Two images: query 1 of the first answers for its object, query 0 of the second for its second object."""
    logits = torch.tensor([[[[logit(0.1), logit(0.2)], [logit(0.7), logit(0.4)]]] * 2], dtype=torch.float64)
    prediction = Prediction(logits, torch.tensor([[[LEFT, RIGHT], [LEFT, FAR]]], dtype=torch.float64))
    objects = objects_of(target([0], LEFT), target([0, 1], FAR, RIGHT))
    return Matched(prediction, objects, torch.tensor([[[1], [1], [0]]]), torch.tensor([[[True], [False], [True]]]))


def test_values_are_spread_to_the_logits_of_those_who_answer() -> None:
    found = predicted().spread(torch.tensor([[[3.0], [4.0], [5.0]]]))
    assert found.tolist() == [[[[0, 0], [3, 0]], [[0, 5], [0, 0]]]]


def test_class_l1_and_giou_losses_are_sums_over_the_objects() -> None:
    found = losses.set_losses(predicted(), num_boxes=3.0)
    background = [focal(0.1, False), focal(0.2, False), focal(0.7, False), focal(0.4, False)]
    classes = 2 * sum(background)
    classes += focal(0.7, True) - focal(0.7, False) + focal(0.2, True) - focal(0.2, False)
    assert found["loss_ce"].item() == pytest.approx(classes / 3)
    assert found["loss_bbox"].item() == pytest.approx((0.2 + 0.2) / 3)
    assert found["loss_giou"].item() == pytest.approx(2 * (1 - GIOU) / 3)


def test_layers_have_losses_of_their_own_which_are_never_divided_by_less_than_one() -> None:
    one = predicted()
    both = Prediction(one.prediction.logits.repeat(2, 1, 1, 1), one.prediction.boxes.repeat(2, 1, 1, 1))
    both.boxes[1, 0, 1, 0] += 0.3  # the second layer's query 1 on the first image, which answers for LEFT
    matched = Matched(both, one.objects, one.query.repeat(2, 1, 1), one.present.repeat(2, 1, 1))
    found = layer_losses(FOCAL.decoder, matched, 0.5, ["_first", "_second"])
    assert found["loss_bbox_first"].item() == pytest.approx(0.4)
    assert found["loss_bbox_second"].item() == pytest.approx(0.7)


def bce(wanted: float, unwanted: float, probability: float) -> float:
    return -wanted * math.log(probability) - unwanted * math.log(1 - probability)


@pytest.mark.parametrize("ranked", [False, True])
def test_classes_that_know_their_box(ranked: bool) -> None:
    """Align-DETR's loss: t = p^0.25 IoU^0.75, at least 0.01; ranks of one object lose weight by exp(-rank / 1.5)."""
    logits = torch.tensor([[[[logit(0.7)], [logit(0.4)], [logit(0.2)], [logit(0.3)]]]], dtype=torch.float64)
    prediction = Prediction(logits, torch.tensor([[[LEFT, RIGHT, FAR, LEFT]]], dtype=torch.float64))
    query, present = torch.tensor([[[2, 0], [1, 3]]]), torch.tensor([[[True, True], [True, False]]])
    matched = Matched(prediction, objects_of(target([0, 0], LEFT, RIGHT)), query, present)
    found = losses.iou_aware_losses(matched, num_boxes=2.0, ranked=ranked)
    quality = {2: 0.01, 0: 0.7**0.25, 1: 0.4**0.25}
    weight = {2: math.exp(-1 / 1.5) if ranked else 1.0, 0: 1.0, 1: 1.0}
    probability = {0: 0.7, 1: 0.4, 2: 0.2}
    classes = sum(bce(quality[q] * weight[q], 1 - quality[q] * weight[q], probability[q]) for q in (0, 1, 2)) + bce(
        0, 0.3**2, 0.3
    )
    assert found["loss_ce"].item() == pytest.approx(classes / 2)
    assert found["loss_bbox"].item() == pytest.approx(weight[2] * (0.7 + 0.2) / 2)
    assert found["loss_giou"].item() == pytest.approx(weight[2] * (1 - GIOU_FAR) / 2)


def test_ranks_count_those_who_are_present_for_an_object() -> None:
    quality = torch.tensor([[[0.1, 0.5, 0.2], [0.9, 0.3, 0.4]]])
    present = torch.tensor([[[True] * 3, [False, True, True]]])
    found = losses.ranks(quality, present)
    assert found[0, 0].tolist() == [2, 0, 1]
    assert found[0, 1, 1:].tolist() == [1, 0]


def test_the_total_weighs_each_loss_by_its_longest_stem() -> None:
    class Term(nn.Module):
        weights = {"loss_score": 3.0}  # noqa: RUF012

    criterion = Criterion([Term()], class_weight=2.0, proposal_class_weight=7.0)  # type: ignore[list-item]
    names = ["loss_ce", "loss_ce_4", "loss_ce_enc", "loss_bbox_1", "loss_giou_enc", "loss_score", "loss_bbox"]
    assert [criterion.weight(name) for name in names] == [2, 2, 7, 5, 2, 3, 5]
    assert criterion.total({name: torch.tensor(10.0) for name in names}).item() == 260


class Divisor(LossTerm):
    """Notes what the terms are given to divide by."""

    def forward(self, out: Any, objects: Any, matched: Any, num_boxes: float, supervision: Any) -> dict[str, Tensor]:
        return {"loss_ce": torch.tensor(num_boxes)}


@pytest.mark.parametrize(("given", "expected"), [(None, 2), (0.25, 0.25)])
def test_a_batch_counts_its_own_objects_unless_it_is_a_part_of_a_step(given: float | None, expected: float) -> None:
    criterion, batch = Criterion([Divisor()], class_weight=1.0), [target([0, 1], LEFT, RIGHT), target([])]
    out = SimpleNamespace(pred_boxes=torch.zeros(2, 1, 4))
    assert criterion(out, batch, given)["loss_ce"] == expected  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- positions


def test_sine_embedding() -> None:
    found = positions.sine_embedding(torch.tensor([2.0], dtype=torch.float64), 4, 100)
    assert found.tolist() == pytest.approx([math.sin(2), math.cos(2), math.sin(0.2), math.cos(0.2)])
    boxed = positions.box_positions(torch.tensor([0.25, 0.5]), 2)
    assert boxed.tolist() == pytest.approx([1, 0, 0, -1], abs=1e-6)  # a quarter and half a turn


@pytest.mark.parametrize("offset", [0.0, -0.5])
def test_positions_count_the_valid_cells(offset: float) -> None:
    """The first half of the channels is for y, the second for x; three of four columns and both rows are valid."""
    padding = torch.tensor([[[False, False, False, True]] * 2])
    found = positions.grid_positions(padding, 4, 10000, offset, torch.float64)
    assert found.shape == (1, 4, 2, 4)
    y, x = (2 * math.pi * (1 + offset) / 2, 2 * math.pi * (2 + offset) / 3)
    assert found[0, :, 0, 1].tolist() == pytest.approx([math.sin(y), math.cos(y), math.sin(x), math.cos(x)], abs=1e-5)


# -------------------------------------------------------------------------------------------- where is sampled


def tokens(valid: list[list[int]], sizes: list[tuple[int, int]] | None = None, stride: int = 8) -> Tokens:
    """Levels of 4 x 8 and 2 x 4 cells, of which the top left part is valid (width, height by level)."""
    sizes = sizes or [(4, 8), (2, 4)]
    padding = []
    for (height, width), (columns, rows) in zip(sizes, valid):
        level = torch.ones(height, width, dtype=torch.bool)
        level[:rows, :columns] = False
        padding.append(level.flatten())
    shapes, starts = neck.level_geometry(sizes, torch.device("cpu"))
    flat = torch.cat(padding)[None]
    features = torch.zeros(1, flat.shape[1], 16, dtype=torch.float64)
    return Tokens(
        features,
        features,
        flat,
        sizes,
        shapes,
        starts,
        torch.tensor([valid], dtype=torch.float64),
        True,
        torch.tensor([valid[0]], dtype=torch.float64) * stride,
        stride,
        (sizes[0][0] * stride, sizes[0][1] * stride),
    )


def test_level_geometry() -> None:
    shapes, starts = neck.level_geometry([(4, 8), (2, 4), (1, 2)], torch.device("cpu"))
    assert (shapes.tolist(), starts.tolist()) == ([[4, 8], [2, 4], [1, 2]], [0, 32, 40])
    assert neck.level_stride((100, 133), (13, 17)) == 8
    assert neck.level_stride((97, 97), (13, 13)) == 8


def test_offsets_count_cells_around_a_point_and_parts_of_half_a_side_around_a_box() -> None:
    offsets = torch.ones(1, 1, 4, 2, 3, 2, dtype=torch.float64)
    point = torch.tensor([0.5, 0.5], dtype=torch.float64).expand(1, 1, 2, 2)
    found = ops.sampling_locations(torch.tensor([[4, 8], [2, 4]]), offsets, point)
    assert found[0, 0, 0, 0, 0].tolist() == [0.5 + 1 / 8, 0.5 + 1 / 4]
    assert found[0, 0, 0, 1, 0].tolist() == [0.5 + 1 / 4, 0.5 + 1 / 2]
    box = torch.tensor([0.5, 0.5, 0.6, 0.3], dtype=torch.float64).expand(1, 1, 2, 4)
    found = ops.sampling_locations(torch.tensor([[4, 8], [2, 4]]), offsets, box)
    assert found[0, 0, 0, 0, 0].tolist() == pytest.approx([0.5 + 0.3 / 3, 0.5 + 0.15 / 3])


def test_heads_start_out_looking_around_point_by_point() -> None:
    start = attention.DeformableAttention(DIMENSIONS).sampling_offsets.bias.detach().view(4, 2, 3, 2)
    assert start[0, 0, :, 0].tolist() == pytest.approx([1, 2, 3])  # the first head to the right
    directions = [[1, 0], [0, 1], [-1, 0], [0, -1]]
    np.testing.assert_allclose(start[:, 1, 0], directions, atol=1e-6)
    np.testing.assert_allclose(start[:, 0, 2], 3 * np.array(directions), atol=1e-5)


def test_weights_of_a_head_add_up_to_one_over_all_levels() -> None:
    torch.manual_seed(0)
    layer = attention.DeformableAttention(DIMENSIONS).double()
    nn.init.normal_(layer.attention_weights.weight)
    pyramid = tokens([[6, 4], [3, 2]])
    query, memory = torch.randn(1, 5, 16).double(), torch.randn(1, 40, 16).double()
    reference = torch.rand(1, 5, 2, 2).double()
    sampled = layer(query, reference, memory, pyramid)
    assert sampled.points.weights.sum((-1, -2)).tolist() == [[pytest.approx([1] * 4)] * 5]
    # What lies on padding does not matter.
    changed = memory + 9 * pyramid.padding[..., None]
    torch.testing.assert_close(layer(query, reference, changed, pyramid).output, sampled.output)


def test_self_attention_reads_positions_as_queries_and_keys_alone() -> None:
    torch.manual_seed(0)
    ours = attention.SelfAttention(DIMENSIONS).double().eval()
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double().eval()
    theirs.load_state_dict(ours.state_dict())
    content, position = torch.randn(2, 5, 16).double(), torch.randn(2, 5, 16).double()
    blocked = torch.eye(5).roll(1, 0).bool()
    place = content + position
    expected = theirs(place, place, content, attn_mask=blocked, need_weights=False)[0]
    torch.testing.assert_close(ours(content, position, blocked), expected)
    torch.testing.assert_close(ours(content, position), theirs(place, place, content, need_weights=False)[0])


def test_centres_are_fractions_of_the_valid_area_scaled_to_each_level() -> None:
    pyramid = tokens([[6, 4], [3, 2]])
    centres = pyramid.cell_centres()[0]
    assert centres[0].tolist() == [0.5 / 6, 0.5 / 4]
    assert centres[8 + 5].tolist() == [5.5 / 6, 1.5 / 4]
    assert centres[32 + 4 + 1].tolist() == [1.5 / 3, 1.5 / 2]
    reference = pyramid.encoder_reference_points()[0]
    assert reference[13].tolist() == [pytest.approx([5.5 / 8, 1.5 / 4])] * 2
    wider = tokens([[6, 4], [4, 2]]).encoder_reference_points()[0]
    assert wider[13].tolist() == [pytest.approx([5.5 / 8, 1.5 / 4]), pytest.approx([5.5 / 6, 1.5 / 4])]


def test_a_proposal_is_a_token_with_a_side_that_doubles_from_level_to_level() -> None:
    pyramid = tokens([[6, 4], [3, 2]])
    logits, excluded = pyramid.proposals()
    assert logits[0, 13].sigmoid().tolist() == pytest.approx([5.5 / 6, 1.5 / 4, 0.05, 0.05])
    assert logits[0, 32 + 5].sigmoid().tolist() == pytest.approx([1.5 / 3, 1.5 / 2, 0.1, 0.1])
    assert torch.equal(excluded, pyramid.padding)  # no centre is within a hundredth of the border
    assert logits[0, 6].tolist() == [math.inf] * 4
    third = tokens([[8, 4], [4, 2], [2, 1]], [(4, 8), (2, 4), (1, 2)]).proposals()[0][0, -1]
    assert third.sigmoid().tolist() == pytest.approx([0.75, 0.5, 0.2, 0.2])


def test_padding_is_no_proposal_wherever_it_lies() -> None:
    pyramid = tokens([[6, 4], [3, 2]])
    pyramid.padding[0, 13] = True  # a mask may have a hole
    logits, excluded = pyramid.proposals()
    assert excluded[0, 13]
    assert logits[0, 13].tolist() == [math.inf] * 4


def test_tokens_near_either_border_are_no_proposals() -> None:
    pyramid = tokens([[60, 1]], [(1, 60)])
    assert pyramid.proposals()[1][0].nonzero()[:, 0].tolist() == [0, 59]  # centres at 1/120 and 119/120


def test_queries_are_scaled_to_each_padded_level() -> None:
    """Three quarters of the columns are valid, and half of the rows of the coarser level."""
    point, box = torch.tensor([[[0.4, 0.8]]]).double(), torch.tensor([[[0.4, 0.8, 0.2, 0.6]]]).double()
    pyramid = tokens([[6, 4], [3, 1]])
    assert scale_reference_points(point, pyramid)[0, 0].tolist() == [
        pytest.approx([0.3, 0.8]),
        pytest.approx([0.3, 0.4]),
    ]
    assert scale_reference_points(box, pyramid)[0, 0].tolist() == [
        pytest.approx([0.3, 0.8, 0.15, 0.6]),
        pytest.approx([0.3, 0.4, 0.15, 0.3]),
    ]


def test_a_pyramid_without_its_finest_level() -> None:
    rest = tokens([[6, 4], [3, 2]]).without_finest(1)
    assert (rest.sizes, rest.level_start_index.tolist(), rest.finest_stride) == ([(2, 4)], [0], 16)
    assert (rest.num_valid, rest.features.shape[1]) == ([6], 8)
    assert rest.cell_centres()[0, 5].tolist() == [1.5 / 3, 1.5 / 2]


# ------------------------------------------------------------------------------------- what tokens learn from


def test_the_most_attended_tokens_off_the_padding() -> None:
    attended = torch.tensor([[5.0, 1.0, 4.0, 9.0], [0.0, -1.0, 2.0, 3.0]])
    padding = torch.tensor([[False, False, False, True], [False] * 4])
    assert auxiliary.most_attended(attended, padding, [2, 1]).tolist() == [[1, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(("agnostic", "label"), [(True, 0), (False, 1)])
def test_proposals_learn_objectness_or_classes(agnostic: bool, label: int) -> None:
    """A lone proposal on the object is right where its logit for the label that counts is high."""
    sure = torch.full((1, 1, 2), -9.0)
    sure[0, 0, label] = 9.0
    out = SimpleNamespace(queries=SimpleNamespace(proposals=Prediction(sure, torch.tensor([[LEFT]]))))
    found = run_term(auxiliary.ProposalLoss(agnostic), out, target([1], LEFT))
    assert set(found) == {"loss_ce_enc", "loss_bbox_enc", "loss_giou_enc"}
    assert found["loss_ce_enc"].item() < 1e-6
