"""What single parts do with a few tokens, queries and objects, against what the papers and their code say."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from test_by_hand import DIMENSIONS, FAR, LEFT, RIGHT, focal, logit, objects_of, run_term, target, tokens
from torch import Tensor, nn
from training_goldens import random_batch, tiny

from detrbench import models
from detrbench.models import positions
from detrbench.models.assignment import assign, matching_scores
from detrbench.models.backbones.resnet import first_stage
from detrbench.models.backbones.tiny import Residual
from detrbench.models.collaborative import CollaborativeLoss
from detrbench.models.decoders.dino import BoxPosition
from detrbench.models.denoising import ContrastiveDenoising, DenoisingLoss, PlainDenoising
from detrbench.models.encoders.dual_attention import ObjectTokens
from detrbench.models.encoders.focus import ForegroundSelector
from detrbench.models.encoders.lite import FullLayer, LiteEncoder
from detrbench.models.encoders.sparse import ScoreNetwork, by_attention, keep_counts, write_back
from detrbench.models.foreground import ForegroundLoss, foreground_labels
from detrbench.models.heads import DetectionHeads
from detrbench.models.layers import MLP, DecoderLayer, FeedForward
from detrbench.models.one_to_many import RepeatedLoss
from detrbench.models.proposals import ProposalHead
from detrbench.models.queries import EncoderQueries, LearnableQueries, MixedQueries
from detrbench.models.tokens import Encoded, Outputs, Prediction, Queries, gather_tokens

MANY = dataclasses.replace(DIMENSIONS, num_classes=1000)
MIDDLE = [0.5, 0.5, 0.4, 0.2]

# ------------------------------------------------------------------------------------------------- denoising


def contrastive(count: int = 400, labels: float = 0.0, noise: float = 1.0) -> ContrastiveDenoising:
    torch.manual_seed(0)
    return ContrastiveDenoising(MANY, count, labels, noise, no_object_row=False)


def test_positives_stay_within_the_noise_and_negatives_go_beyond() -> None:
    """A noise of 0.4: corners move by up to 0.4 halves of a side, those of negatives by 0.4 to 0.8."""
    found = contrastive(noise=0.4).noise(objects_of(target([3], MIDDLE)))
    assert (found.groups, found.boxes.shape) == (400, (1, 800, 4))
    corners = corners_of(found.boxes[0]).view(400, 2, 4)
    moved = (corners - corners_of(torch.tensor(MIDDLE))).abs() / torch.tensor([0.2, 0.1, 0.2, 0.1])
    assert 0.39 < moved[:, 0].max() < 0.4001
    assert 0.3999 < moved[:, 1].min() < 0.41
    assert 0.79 < moved[:, 1].max() < 0.8001


def corners_of(boxes: Tensor) -> Tensor:
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def test_noised_boxes_stay_in_the_image() -> None:
    found = contrastive().noise(objects_of(target([3], [0.1, 0.1, 0.2, 0.2])))
    corners = corners_of(found.boxes[0])
    assert corners.min() >= -1e-4
    assert corners.max() <= 1.0001


def test_groups_share_the_queries_among_the_objects_of_the_fullest_image() -> None:
    found = contrastive(100).noise(objects_of(target([3] * 3, *[MIDDLE] * 3), target([4], MIDDLE)))
    assert (found.groups, found.boxes.shape[1]) == (33, 33 * 2 * 3)
    assert contrastive(2).noise(objects_of(target([3] * 3, *[MIDDLE] * 3))).groups == 1
    # The second image has one object: of each three slots the first, the others hold nothing.
    held = found.content[1].abs().sum(-1).view(66, 3) > 0
    assert held.tolist() == [[True, False, False]] * 66


@pytest.mark.parametrize(("noise", "share"), [(0.0, 0.0), (0.5, 0.25)])
def test_contrastive_denoising_draws_half_of_its_label_noise(noise: float, share: float) -> None:
    part = contrastive(3000, labels=noise)
    content = part.noise(objects_of(target([3], MIDDLE))).content[0]
    kept = (content == part.label_embedding.weight[3]).all(-1).double().mean().item()
    assert kept == pytest.approx(1 - share, abs=0.02)


def test_plain_denoising_moves_centres_by_half_a_side_and_sides_by_a_whole_one() -> None:
    torch.manual_seed(0)
    part = PlainDenoising(MANY, 400, label_noise=0.2, box_noise=0.5)
    found = part.noise(objects_of(target([3], MIDDLE)))
    moved = (found.boxes[0] - torch.tensor(MIDDLE)).abs().amax(0) / torch.tensor([0.1, 0.05, 0.2, 0.1])
    assert moved.tolist() == pytest.approx([1] * 4, abs=0.02)
    assert found.content[0, :, -1].tolist() == [1.0] * 400
    kept = (found.content[0, :, :-1] == part.label_embedding.weight[3]).all(-1).double().mean().item()
    assert kept == pytest.approx(0.8, abs=0.06)


def test_losses_of_noised_queries_are_means_over_the_groups() -> None:
    """Two groups of a positive and a negative slot; both positives are off by 0.2 in x."""
    boxes = torch.tensor([[RIGHT, FAR, RIGHT, FAR]], dtype=torch.float64)
    prediction = Prediction(torch.zeros(1, 4, 2, dtype=torch.float64), boxes)
    out = SimpleNamespace(noised=[prediction, prediction], queries=SimpleNamespace(noised=4, noised_groups=2))
    found = run_term(DenoisingLoss(), out, target([0], LEFT))
    assert set(found) == {f"loss_{name}_dn{layer}" for name in ("ce", "bbox", "giou") for layer in ("", "_0")}
    assert found["loss_bbox_dn"].item() == pytest.approx(0.2)
    classes = 2 * focal(0.5, True) + 6 * focal(0.5, False)
    assert found["loss_ce_dn"].item() == pytest.approx(classes / 2)


# ----------------------------------------------------------------------------------------------- one to many


def test_a_query_scores_by_its_box_and_its_class() -> None:
    logits = torch.tensor([[[[logit(0.9), logit(0.2)], [logit(0.5), logit(0.6)]]]])
    objects = objects_of(target([1, 0], RIGHT, LEFT), like=torch.float32)
    found = matching_scores(torch.tensor([[[LEFT, FAR]]]), logits, objects)
    assert found[0].tolist() == [
        pytest.approx([0.7 / 3 + 0.3 * 0.2, 0.3 * 0.6]),
        pytest.approx([0.7 + 0.3 * 0.9, 0.3 * 0.5]),
    ]


@pytest.mark.parametrize(
    ("scores", "threshold", "top", "queries"),
    [
        ([0.9, 0.5, 0.4], 0.5, 6, [0, 1]),  # the threshold itself is reached
        ([0.3, 0.2, 0.1], 0.5, 6, [0]),  # nobody fits the object better
        ([0.9, 0.8, 0.7], 0.5, 2, [0, 1]),
    ],
)
def test_who_answers_for_an_object(scores: list[float], threshold: float, top: int, queries: list[int]) -> None:
    query, present = assign(torch.tensor([[scores]]), objects_of(target([0], LEFT)), threshold, top, 75)
    assert query[present].tolist() == queries


def test_an_image_trains_75_queries_at_most() -> None:
    scores, objects = torch.full((2, 2, 300), 0.9), objects_of(target([0], LEFT), target([0], LEFT))
    scores[1, 1, 60:] = 0.1  # so many are left to this one, none of which is drawn away
    _, present = assign(scores, objects, 0.5, 300, 75)
    assert present.sum(2).tolist() == [[75, 75], [75, 60]]


def test_losses_of_the_second_decoder() -> None:
    """Scores read the first decoder's boxes and the second's classes; losses are those of the second over 3 objects."""
    sure = torch.tensor([[[9.0, -9.0], [-9.0, -9.0]]], dtype=torch.float64)
    ours = Prediction(sure, torch.tensor([[LEFT, FAR]], dtype=torch.float64))
    theirs = Prediction(sure, torch.tensor([[RIGHT, LEFT]], dtype=torch.float64))
    branch = SimpleNamespace(layers=[theirs], noised=[])
    out = SimpleNamespace(layers=[ours], auxiliary=branch, pred_boxes=ours.boxes, queries=None)
    found = run_term(CollaborativeLoss(0.9, 6), out, target([0], LEFT))
    assert found["loss_bbox_cdecoder"].item() == pytest.approx(0.2 / 3)  # of query 0, which is the best in `ours`


def test_the_second_decoder_mixes_queries_in_its_first_layer_alone() -> None:
    detector = tiny("dac_detr_tiny", num_decoder_layers=3)
    seen: list[int] = []
    for number, layer in enumerate(detector.decoder.layers):
        layer.self_attention.register_forward_hook(lambda *of, number=number: seen.append(number))
    images, targets = random_batch()
    detector.train()(images, targets=targets)
    assert seen == [0, 1, 2, 0]


def test_losses_of_repeated_objects_count_every_repeat() -> None:
    prediction = Prediction(
        torch.zeros(1, 3, 2, dtype=torch.float64), torch.tensor([[LEFT, RIGHT, FAR]], dtype=torch.float64)
    )
    out = SimpleNamespace(one_to_many=[prediction], pred_boxes=prediction.boxes)
    found = run_term(RepeatedLoss(2, weight=3.0), out, target([0], LEFT))
    assert found["loss_bbox_one2many"].item() == pytest.approx(3 * (0 + 0.2) / 2)


# ------------------------------------------------------------------------------------------------ foreground

INTERVALS = [[-1, 16], [16, 999]]


def test_foreground_are_centres_inside_a_box_whose_farthest_side_fits_the_level() -> None:
    """An image of 64 x 32 pixels, cells of 8 and 16: token (row, column) has its centre at (8 c + 4, 8 r + 4)."""
    pyramid = tokens([[8, 4], [4, 2]])
    box = [16 / 64, 12 / 32, 24 / 64, 16 / 32]  # 4 to 28 wide, 4 to 20 high
    found = foreground_labels(pyramid, objects_of(target([0], box)), INTERVALS)[0]
    # Strictly inside lie columns 1 and 2 (x 12, 20) and row 1 (y 12); their farthest sides are at 16 and 16.
    fine = found[:32].view(4, 8).nonzero().tolist()
    assert fine == [[1, 1], [1, 2]]
    # Coarse centres (8, 8), (24, 8): farthest sides at 20 and 20, above 16.
    assert found[32:].view(2, 4).nonzero().tolist() == [[0, 0], [0, 1]]
    exclusive = foreground_labels(pyramid, objects_of(target([0], box)), [[16, 999], [-1, 20]])[0]
    assert exclusive[:32].sum() == 0  # exactly 16 is not above 16
    assert exclusive[32:].sum() == 2  # and exactly 20 is not above 20


def test_foreground_loss_is_over_the_foreground_tokens_of_each_image() -> None:
    pyramid = tokens([[8, 4], [4, 2]])
    scores = torch.zeros(1, 40, dtype=torch.float64)
    out = SimpleNamespace(encoded=SimpleNamespace(foreground=scores), tokens=pyramid)
    term = ForegroundLoss(INTERVALS)
    box = [16 / 64, 12 / 32, 24 / 64, 16 / 32]  # four tokens, as above
    found = run_term(term, out, target([0], box), num_boxes=99.0)["loss_foreground"].item()
    assert found == pytest.approx((4 * focal(0.5, True) + 36 * focal(0.5, False)) / 4)
    nothing = run_term(term, out, target([]), num_boxes=99.0)["loss_foreground"].item()
    assert nothing == pytest.approx(40 * focal(0.5, False))
    assert term.weights == {"loss_foreground": 1.5}


class First(nn.Module):
    """Scores a token by its first channel."""

    def forward(self, features: Tensor) -> Tensor:
        return features[..., 0]


@pytest.mark.parametrize("direction", ["top_down", "bottom_up"])
def test_scores_of_one_level_modulate_the_next_one(direction: str) -> None:
    """Coarse 1 x 2 and fine 1 x 4 cells; scores are resized so that outermost cells keep theirs."""
    selector = ForegroundSelector(DIMENSIONS, direction).double()
    selector.score_network = First()  # type: ignore[assignment]
    nn.init.constant_(selector.alpha, 0.5)
    features = torch.ones(1, 6, 16, dtype=torch.float64)
    features[0, :, 0] = torch.tensor([1.0, 2, 3, 4, 6, 12])
    found = selector(features, [(1, 4), (1, 2)])[0].tolist()
    if direction == "top_down":
        between = [6, 8, 10, 12]
        assert found == pytest.approx([x * (1 + 0.5 * s) for x, s in zip([1, 2, 3, 4], between)] + [6, 12])
    else:
        assert found == pytest.approx([1, 2, 3, 4, 6 * (1 + 0.5 * 1), 12 * (1 + 0.5 * 4)])


def test_each_step_of_the_modulation_has_its_own_factor() -> None:
    selector = ForegroundSelector(dataclasses.replace(DIMENSIONS, num_levels=3), "top_down").double()
    selector.score_network = First()  # type: ignore[assignment]
    selector.alpha.data = torch.tensor([0.5, 2.0], dtype=torch.float64)
    found = selector(torch.ones(1, 3, 16, dtype=torch.float64), [(1, 1)] * 3)[0].tolist()
    assert found == pytest.approx([1 + 2 * 1.5, 1.5, 1])


def test_object_tokens_are_those_of_the_largest_product() -> None:
    classes, scores = torch.tensor([[[3.0, 1], [-2, -3], [1, 1], [-1, 5]]]), torch.tensor([[1.0, -4, 2, -1]])
    head = cast(ProposalHead, SimpleNamespace(class_embed=nn.Identity()))
    chosen = ObjectTokens(2, True)(classes, scores, head)
    assert chosen.tolist() == [[1, 0]]  # -2 x -4 = 8, then 3 x 1; 5 x -1 is last
    assert ObjectTokens(2, False)(classes, scores, head).tolist() == [[2, 0]]


# -------------------------------------------------------------------------------------------------- encoders


def sampled_by(name: str, **options: Any) -> tuple[list[Tensor], Any]:
    """What each encoder layer samples, and the output."""
    detector = tiny(name, **options).eval()
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    seen: list[Tensor] = []
    for layer in detector.encoder.layers:
        layer.attention.register_forward_pre_hook(lambda module, args: seen.append(args[2].clone()))
    with torch.no_grad():
        out = detector(random_batch()[0])
    return seen, out


@pytest.mark.parametrize(
    ("name", "options", "updated"),
    [
        ("deformable_detr_tiny", {}, True),
        ("sparse_detr_tiny", {"keep_ratio": 0.5}, True),
        ("focus_detr_tiny", {"keep_ratios": [0.5, 0.3]}, False),  # its layers go on sampling the neck's features
        ("lite_deformable_detr_tiny", {"blocks": 1, "high_updates": 2}, True),
    ],
)
def test_what_layers_sample(name: str, options: dict[str, Any], updated: bool) -> None:
    first, *later = sampled_by(name, num_encoder_layers=2, **options)[0]
    assert later
    assert [torch.equal(first, each) for each in later] == [not updated] * len(later)


def test_a_lite_block_ends_with_all_tokens_in_networks_of_their_own() -> None:
    encoder = LiteEncoder(
        dataclasses.replace(DIMENSIONS, num_levels=4, ffn_dim=64),
        high_levels=3,
        high_updates=3,
        blocks=2,
        low_updates=True,
    )
    assert [isinstance(layer, FullLayer) for layer in encoder.layers] == [False, False, True] * 2
    assert encoder.low_levels == 1
    layer = encoder.layers[2]
    assert isinstance(layer, FullLayer)
    assert (layer.low_feed_forward.linear1.out_features, layer.feed_forward.linear1.out_features) == (16, 64)
    layer.attend = lambda query, *of: query  # type: ignore[method-assign]
    for network, value in ((layer.feed_forward, 1.0), (layer.low_feed_forward, 2.0)):
        nn.init.zeros_(network.norm.weight)
        nn.init.constant_(network.norm.bias, value)
    tokens = SimpleNamespace(cells=[3, 1, 1, 0])
    found = layer(torch.zeros(1, 5, 16), None, None, None, tokens)
    assert found[0, :, 0].tolist() == [2, 2, 2, 1, 1]


def test_kept_are_one_more_than_the_share_rounded_down_in_float32() -> None:
    assert keep_counts([100, 7, 3], 0.3) == [31, 3, 1]
    assert keep_counts([100, 10], 1.0) == [100, 10]
    # 0.7 x 90 is 62.999... in float64 and 63 in float32, in which the official code rounds.
    assert keep_counts([90], 0.7) == [64]


def test_a_sparse_encoder_keeps_the_best_of_what_is_no_padding() -> None:
    """30 of 40 tokens are valid; scores grow with the index, and read the projected sum of feature and position."""
    layers = dataclasses.replace(DIMENSIONS, num_encoder_layers=3)
    encoder = by_attention(layers, keep_ratio=0.5, encoder_auxiliary=True, dual_attention=False).double().eval()
    head, pyramid = ProposalHead(DIMENSIONS, False).double(), tokens([[6, 4], [3, 2]])
    pyramid.features, pyramid.positions = torch.randn(2, 1, 40, 16, dtype=torch.float64)
    seen: list[Tensor] = []
    encoder.score_network.score = lambda projected, *of: (seen.append(projected), (torch.arange(40.0)[None], None))[1]  # type: ignore[method-assign, assignment]
    kept = encoder(pyramid, head, "final").kept_tokens
    valid = (~pyramid.padding[0]).nonzero()[:, 0].tolist()
    assert kept is not None
    assert [sorted(images[0].tolist()) for images in kept] == [valid[-16:]] * 3
    excluded = pyramid.proposals()[1]
    torch.testing.assert_close(seen[0], head.project(pyramid.features + pyramid.positions, excluded))
    assert len(encoder.auxiliary_heads) == 2  # none behind the last layer, from which the queries come


def test_surplus_tokens_of_smaller_images_are_not_written() -> None:
    memory, updated = torch.zeros(2, 4, 1), torch.ones(2, 3, 1)
    found = write_back(memory, updated, torch.tensor([[0, 1, 2], [3, 2, 1]]), [3, 1])
    assert found[..., 0].tolist() == [[1, 1, 1, 0], [0, 0, 0, 1]]


def test_a_score_reads_a_tokens_own_half_and_the_mean_of_the_other() -> None:
    network = ScoreNetwork(4)
    network.local = nn.Identity()  # type: ignore[assignment]
    network.joint = nn.Linear(4, 1, bias=False)  # type: ignore[assignment]
    network.joint.weight.data = torch.tensor([[1.0, 10, 100, 1000]])
    found = network(torch.tensor([[[1.0, 2, 3, 4], [5, 6, 7, 8]]]))
    assert found.tolist() == [[1 + 20 + 500 + 6000, 5 + 60 + 500 + 6000]]


# ------------------------------------------------------------------------------------------ queries and heads


def test_networks_of_heads_have_relu_between_their_layers() -> None:
    network = MLP(1, 2, 1, 2)
    first, last = (cast(nn.Linear, layer) for layer in network.layers)
    first.weight.data, first.bias.data = torch.tensor([[1.0], [-2.0]]), torch.zeros(2)
    last.weight.data, last.bias.data = torch.tensor([[10.0, 100.0]]), torch.tensor([-1.0])
    assert network(torch.tensor([[3.0], [-3.0]])).tolist() == [[29], [599]]  # the last one has none


def feed_forward(dropout: float = 0.0) -> FeedForward:
    torch.manual_seed(0)
    return FeedForward(dataclasses.replace(DIMENSIONS, dropout=dropout))


def test_a_feed_forward_network_adds_to_what_it_reads() -> None:
    network, x = feed_forward(), torch.randn(1, 3, 16)
    hidden = network.linear1(x).clamp(min=0)
    torch.testing.assert_close(network(x), network.norm(x + network.linear2(hidden)))


def test_dropout_acts_in_training_alone() -> None:
    network, x = feed_forward(dropout=0.5), torch.randn(1, 3, 16)
    assert not torch.equal(network.train()(x), network(x))
    torch.testing.assert_close(network.eval()(x), feed_forward().eval()(x))


def test_a_decoder_layer_looks_from_content_and_position() -> None:
    layer = DecoderLayer(DIMENSIONS).double().eval()
    seen: list[Tensor] = []
    layer.cross_attention.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    content, position = torch.randn(2, 1, 3, 16, dtype=torch.float64)
    memory, reference = torch.randn(1, 40, 16).double(), torch.rand(1, 3, 2, 2).double()
    layer(content, position, reference, memory, tokens([[8, 4], [4, 2]]), mixing=False)
    torch.testing.assert_close(seen[0], content + position)


def test_the_tiny_backbone_has_shortcuts() -> None:
    unit, x = Residual(4).eval(), torch.randn(1, 4, 3, 3)
    nn.init.zeros_(unit.second[0].weight)
    assert torch.equal(unit(x), x)


def test_learned_queries_are_position_then_content() -> None:
    part = LearnableQueries(DIMENSIONS)
    found = part(Encoded(torch.zeros(2, 5, 16)), None, None, False, 0)  # type: ignore[arg-type]
    assert torch.equal(found.position[1], part.embedding[:, :16])
    assert torch.equal(found.content[0], part.embedding[:, 16:])
    assert torch.equal(found.reference_points[0], part.reference_points(part.embedding[:, :16]).sigmoid())


def selection(part: Any, outputs: Outputs) -> tuple[Queries, Tensor, Tensor, Any, Tensor]:
    """Queries from 40 tokens, with the logits and boxes of all of them, the head and the memory."""
    torch.manual_seed(0)
    head, pyramid = ProposalHead(DIMENSIONS, True).double(), tokens([[8, 4], [4, 2]])
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    memory = torch.randn(1, 40, 16, dtype=torch.float64, requires_grad=True)
    everything = head.predict(memory, pyramid)
    found = part.double()(Encoded(memory), pyramid, head, outputs, 0)
    return found, everything.logits, everything.boxes, head, memory


@pytest.mark.parametrize("outputs", ["final", "all"])
@pytest.mark.parametrize("ranking", ["first_class", "max_class"])
def test_tokens_are_ranked_as_asked_and_boxes_keep_no_gradient(ranking: str, outputs: Outputs) -> None:
    part = EncoderQueries(DIMENSIONS, ranking, "memory", mixed_selection=False, proposals_matched_by="prediction")
    found, logits, boxes, _, memory = selection(part, outputs)
    scores = logits[..., 0] if ranking == "first_class" else logits.amax(-1)
    best = scores.argsort(1, descending=True)[:, :3]
    torch.testing.assert_close(found.reference_points, gather_tokens(boxes, best))
    assert torch.equal(found.content, gather_tokens(memory, best))
    assert not found.reference_points.requires_grad
    assert (found.proposals is not None) is (outputs == "all")
    if found.proposals is not None:
        torch.testing.assert_close(found.proposals.boxes, boxes)


@pytest.mark.parametrize("outputs", ["final", "all"])
@pytest.mark.parametrize("boxes_of", ["all", "selected"])
def test_mixed_queries_rank_by_the_best_class_and_train_what_they_selected(boxes_of: str, outputs: Outputs) -> None:
    part = MixedQueries(DIMENSIONS, boxes_of)
    found, logits, boxes, _, _ = selection(part, outputs)
    best = logits.amax(-1).argsort(1, descending=True)[:, :3]
    torch.testing.assert_close(found.reference_points, gather_tokens(boxes, best))
    assert not found.reference_points.requires_grad
    assert torch.equal(found.content[0], part.content)
    assert found.proposals is not None
    torch.testing.assert_close(found.proposals.logits, gather_tokens(logits, best))
    torch.testing.assert_close(found.proposals.boxes, gather_tokens(boxes, best))
    assert found.proposals.boxes.requires_grad


def test_tokens_that_are_no_candidates_are_projected_as_zero() -> None:
    head = ProposalHead(DIMENSIONS, False)
    found = head.project(torch.randn(1, 2, 16), torch.tensor([[True, False]]))
    torch.testing.assert_close(found[0, 0], head.norm(head.projection(torch.zeros(16))))
    assert not torch.equal(found[0, 0], found[0, 1])


@pytest.mark.parametrize("shared", [True, False])
def test_boxes_are_corrections_of_their_reference_by_the_heads_of_the_layer(shared: bool) -> None:
    heads = DetectionHeads(dataclasses.replace(DIMENSIONS, num_decoder_layers=3), shared).double()
    assert len(heads.box_embed) == (1 if shared else 3)
    for number, head in enumerate(heads.box_embed):
        nn.init.constant_(head.last.bias, 0.5 * number)
    state, reference = torch.zeros(1, 1, 16, dtype=torch.float64), torch.tensor([[[0.3, 0.6]]], dtype=torch.float64)
    for layer in range(3):
        moved = 0.0 if shared else 0.5 * layer
        found = heads.boxes(layer, state, reference)[0, 0]
        expected = [logit(0.3) + moved, logit(0.6) + moved, moved, moved]
        assert torch.logit(found).tolist() == pytest.approx(expected)
    box = torch.tensor([[[0.3, 0.6, 0.2, 0.1]]], dtype=torch.float64)
    assert heads.boxes(0, state, box)[0, 0].tolist() == pytest.approx([0.3, 0.6, 0.2, 0.1])


def test_first_classes_are_improbable_and_first_boxes_of_learned_queries_small() -> None:
    detector = models.create("deformable_detr_tiny", num_classes=5, num_queries=3)
    assert detector.heads.class_embed[0].bias.sigmoid().tolist() == pytest.approx([0.01] * 5)
    assert detector.heads.box_embed[0].last.bias.tolist() == [0, 0, -2, -2]
    two_stage = models.create("deformable_detr_two_stage_tiny", num_classes=5, num_queries=3)
    assert two_stage.heads.box_embed[0].last.bias.tolist() == [0, 0, 0, 0]


def test_dinos_positions_are_of_y_x_w_h_on_the_finest_level() -> None:
    part = BoxPosition(DIMENSIONS).double()
    part.network = nn.Identity()  # type: ignore[assignment]
    boxes = torch.tensor([[[[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]]]], dtype=torch.float64)
    expected = positions.box_positions(torch.tensor([0.2, 0.1, 0.3, 0.4], dtype=torch.float64), 8)
    torch.testing.assert_close(part(boxes)[0, 0], expected)


def test_dab_scales_positions_behind_the_first_layer() -> None:
    decoder = tiny("dn_deformable_detr_tiny").decoder
    boxes, content = torch.rand(1, 3, 4, 4), torch.randn(1, 3, 32)
    plain = decoder.box_position(boxes)
    torch.testing.assert_close(decoder.query_position(0, None, content, boxes), plain)
    scaled = plain * decoder.position_scale(content)
    torch.testing.assert_close(decoder.query_position(1, None, content, boxes), scaled)
    assert not torch.allclose(plain, scaled)


def test_references_of_the_next_layer_are_detached() -> None:
    """Looking once, only the layer itself learns from its box; looking twice, the layer before learns as well."""
    for twice in (False, True):
        detector = tiny("deformable_detr_pp_tiny", look_forward_twice=twice, num_decoder_layers=3)
        out = detector.train()(random_batch()[0])
        out.layers[2].boxes.sum().backward()
        learned = [head.last.bias.grad is not None for head in detector.heads.box_embed]
        assert learned == [False, twice, True]


def test_strides_of_backbones() -> None:
    assert [first_stage(stride) for stride in (4, 8, 16, 32)] == [0, 1, 2, 3]
    detector = models.create("deformable_detr_r50", frozen_stages=2)
    trained = {name.split(".")[0] for name, p in detector.backbone.body.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}
    assert [level.shape[1:] for level in detector.backbone(torch.zeros(1, 3, 64, 96))] == [
        (512, 8, 12),
        (1024, 4, 6),
        (2048, 2, 3),
    ]
