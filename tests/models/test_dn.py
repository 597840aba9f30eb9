"""DN-Deformable-DETR, and the Sparse encoder on every base, at a tiny size."""

from __future__ import annotations

import pytest
import torch
from training_goldens import check_batch_is_single, check_trains, fixed_random, random_batch, tiny

from detrbench.models.denoising import blocked_attention, known_matches
from detrbench.models.targets import Objects
from detrbench.models.tokens import Prediction

SPARSE = (
    "sparse_detr_tiny",
    "sparse_deformable_detr_tiny",
    "sparse_dn_deformable_detr_tiny",
    "sparse_dino_tiny",
)


def test_trains() -> None:
    check_trains(tiny("dn_deformable_detr_tiny"))


def test_batch_is_single() -> None:
    check_batch_is_single(tiny("dn_deformable_detr_tiny"))


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("dual_attention", [False, True])
def test_sparse_encoder_trains_on_every_base(name: str, dual_attention: bool) -> None:
    check_trains(tiny(name, dual_attention=dual_attention))


def test_keeping_everything_is_the_dense_encoder() -> None:
    sparse = tiny("sparse_dino_tiny", keep_ratio=1.0).double().eval()
    dense = tiny("dino_tiny").double().eval()
    shared = {name: tensor for name, tensor in sparse.state_dict().items() if name in dense.state_dict()}
    dense.load_state_dict(shared)
    images = random_batch()[0].double()
    with torch.no_grad():
        assert torch.allclose(sparse(images).pred_boxes, dense(images).pred_boxes, atol=1e-9)


def test_boxes_stay_where_the_noise_is_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = tiny("dn_deformable_detr_tiny").eval()
    images, targets = random_batch()
    with fixed_random("const", monkeypatch), torch.no_grad():
        queries = detector(images, targets=targets).queries
    assert (queries.noised, queries.noised_groups) == (15, 5)
    assert torch.allclose(queries.reference_points[0, :15], targets[0]["boxes"].repeat(5, 1), atol=1e-6)
    assert torch.equal(queries.content[0, :, -1], torch.tensor([1.0] * 15 + [0.0] * 20))
    assert torch.equal(queries.content[1, :15], torch.zeros(15, 32))  # the second image has no objects


def test_mask_lets_nothing_leak() -> None:
    blocked = blocked_attention(4, 2, 2, torch.device("cpu"))
    assert blocked.int().tolist() == [
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
    ]


def test_known_matches_are_the_first_slots_of_each_group() -> None:
    """Two objects in groups of four slots; the second image has none, the third one."""
    counts = [2, 0, 1]
    targets = [{"labels": torch.arange(count), "boxes": torch.rand(count, 4)} for count in counts]
    noised = Prediction(torch.zeros(2, 3, 8, 5), torch.zeros(2, 3, 8, 4))
    matched = known_matches(noised, Objects.of(targets, noised.boxes), groups=2)
    assert matched.query.tolist() == [[[0, 4], [1, 5], [0, 4]]] * 2
    assert matched.present.all()
