"""What detectors begin with, against the distributions of the official code: bounds of what is drawn uniformly.

The official models were built and compared parameter by parameter (mean, deviation, largest value); here stands what
would otherwise be left to a module's own default.
"""

from __future__ import annotations

import math

import pytest
import torch
from families import SMALL, small
from torch import Tensor, nn

WIDTH, QUERIES = SMALL["hidden_dim"], SMALL["num_queries"]


def parameters(detector: nn.Module, ending: str) -> dict[str, Tensor]:
    found = {name: p.detach() for name, p in detector.named_parameters() if name.endswith(ending)}
    assert found, ending
    return found


def xavier(rows: int, columns: int) -> float:
    return math.sqrt(6 / (rows + columns))


@pytest.mark.parametrize(
    ("name", "ending", "bound"),
    [
        ("deformable_detr", "self_attention.out_proj.weight", xavier(WIDTH, WIDTH)),
        ("focus_detr", "dual_attention.0.attention.out_proj.weight", xavier(WIDTH, WIDTH)),
        ("dino", "box_position.network.layers.0.weight", xavier(WIDTH, 2 * WIDTH)),
        ("dino", "box_position.network.layers.1.weight", xavier(WIDTH, WIDTH)),
        ("dn_deformable_detr", "box_position.network.layers.0.weight", xavier(WIDTH, 2 * WIDTH)),
        ("dn_deformable_detr", "position_scale.layers.1.weight", xavier(WIDTH, WIDTH)),
        ("dino", "queries.content", xavier(QUERIES, WIDTH)),
        # The token scores keep a linear layer's own biases.
        ("sparse_detr", "score_network.local.1.bias", 1 / math.sqrt(WIDTH)),
        ("focus_detr", "score_network.joint.0.bias", 1 / math.sqrt(WIDTH)),
        # Heads stand outside of the official transformers, and keep a linear layer's own weights.
        ("dino", "heads.class_embed.0.weight", 1 / math.sqrt(WIDTH)),
        ("dino", "heads.box_embed.0.layers.0.weight", 1 / math.sqrt(WIDTH)),
    ],
)
def test_uniform_within_the_official_bound(name: str, ending: str, bound: float) -> None:
    for found in parameters(small(name, 12), ending).values():
        assert 0.9 * bound < float(found.abs().max()) <= bound
        assert float(found.std()) == pytest.approx(bound / math.sqrt(3), rel=0.25)


def test_anchors_of_dn_detr_are_uniform_over_the_image() -> None:
    anchors = small("dn_deformable_detr", 12).queries.anchors.detach()
    assert float(anchors.abs().max()) == 3
    edge = 1 / (1 + math.exp(3))
    boxes = anchors.sigmoid()
    inner = boxes[(boxes > edge + 1e-6) & (boxes < 1 - edge - 1e-6)]
    assert len(inner) / boxes.numel() == pytest.approx(1 - 2 * edge, abs=0.06)
    shares = [float((inner < limit).float().mean()) for limit in (0.25, 0.5, 0.75)]
    assert shares == pytest.approx([0.22, 0.5, 0.78], abs=0.1)


@pytest.mark.parametrize("name", ["deformable_detr_refine", "sparse_detr", "dac_detr"])
def test_all_heads_begin_alike(name: str) -> None:
    detector = small(name, 12)
    classes = [p for name, p in parameters(detector, "weight").items() if "class_embed" in name]
    boxes = [p for name, p in parameters(detector, "layers.0.weight").items() if "box_embed" in name]
    assert len(classes) == len(boxes) > 1
    for heads in (classes, boxes):
        assert all(torch.equal(head, heads[0]) for head in heads)
        assert len({head.data_ptr() for head in heads}) == len(heads)  # copies, which training parts


def test_first_boxes_begin_small_where_no_proposal_gives_a_size() -> None:
    biases = parameters(small("deformable_detr_refine", 12), "layers.2.bias")
    first = biases.pop("heads.box_embed.0.layers.2.bias")
    assert first.tolist() == [0, 0, -2, -2]
    assert all(not bias.any() for bias in biases.values())
