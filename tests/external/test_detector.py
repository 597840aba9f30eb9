"""The protocol of a detector from elsewhere: what it says, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from some_factories import Grid, detections, grid
from torch import Tensor, nn

from detrbench import external
from detrbench.errors import CheckpointError, NotFinite, UsageError
from detrbench.external.detector import TOP, Adapted, load_state, remark_of
from detrbench.measure import protocols

SIZES = torch.tensor([[64, 100]])  # of an image as it is stored


def test_only_the_module_is_required() -> None:
    made = Adapted(external.ExternalDetector(nn.Conv2d(3, 4, 1)), "mine")
    assert made(torch.zeros(1, 3, 8, 12)).shape == (1, 4, 8, 12)
    assert made.parts == {}
    assert (made.native_size, remark_of(made)) == ((800, 1066), "")
    with pytest.raises(UsageError, match="mine: its ExternalDetector has no `detections`, so there is no AP"):
        made.detections(None, torch.zeros(1, 3, 8, 8), SIZES, ["image 7"])


def test_as_many_detections_are_asked_for_as_any_protocol_scores() -> None:
    known = protocols.of("accuracy")
    assert max(known[name].top for name in known if known[name].fits_external) == TOP


def test_parts_are_what_runs() -> None:
    """A list of modules never runs, those in it do."""
    made = Adapted(grid(), "mine")
    assert made.parts == {"backbone": [made.module.body], "heads": list(made.module.heads)}
    with pytest.raises(UsageError, match="mine: parts: no module 'trunk'") as caught:
        Adapted(external.ExternalDetector(Grid(), parts={"trunk": "backbone"}), "mine")
    assert "body, heads" in str(caught.value.hint)


def test_sides_are_filled_up_and_boxes_stay_where_they_are() -> None:
    """What was seen in an image of 20x30 that was filled up to 24x32 stands in the stored one of 64x100."""
    whole, padded = grid(), torch.zeros(1, 3, 24, 32)
    image = torch.rand(1, 3, 20, 30)
    padded[..., :20, :30] = image
    made = Adapted(whole, "mine")
    out = made(image)
    assert torch.equal(out["scores"], whole.module(padded)["scores"])
    (found,) = made.detections(out, image, SIZES, ["image 7"])
    (theirs,) = detections(out, (24, 32))
    factors = torch.tensor([100 / 30, 64 / 20, 100 / 30, 64 / 20], dtype=torch.float64)
    assert torch.allclose(found.boxes, theirs.boxes.double().flip(0) * factors)
    assert torch.equal(found.scores, theirs.scores.flip(0))  # best first
    assert remark_of(made) == "; sides filled up to multiples of 8 pixels"


def of(scores: Any, labels: Any, boxes: Any) -> external.Detections:
    return external.Detections(torch.as_tensor(scores), torch.as_tensor(labels), torch.as_tensor(boxes))


@pytest.mark.parametrize(
    ("found", "error", "message"),
    [
        ([], UsageError, "expected those of 1 images, got 0"),
        ([of([0.5], [1], [[0.0, 0.0, 1.0]])], UsageError, "expected scores .n,., labels .n,., boxes .n, 4."),
        ([of([0.5], [[1]], [[0.0, 0.0, 1.0, 1.0]])], UsageError, "expected scores"),
        ([of([0.5], [1], [[0.0, 0.0, 1.0, float("nan")]])], NotFinite, "image 7: what mine predicts is not finite"),
        ([of([float("inf")], [1], [[0.0, 0.0, 1.0, 1.0]])], NotFinite, "not finite"),
    ],
)
def test_detections_that_are_none_are_refused(found: Any, error: type[Exception], message: str) -> None:
    made = Adapted(external.ExternalDetector(Grid(), detections=lambda out, size: found), "mine")
    with pytest.raises(error, match=message):
        made.detections(None, torch.zeros(1, 3, 8, 8), SIZES, ["image 7"])


@pytest.mark.parametrize("wrapped", [lambda state: state, lambda state: {"model": state}])
def test_weights_come_from_a_state_dict(wrapped: Any, tmp_path: Path) -> None:
    source, target = Grid(), Grid()
    torch.save(wrapped(source.state_dict()), tmp_path / "w.pth")
    load_state(target, tmp_path / "w.pth")
    assert torch.equal(source.body[0].weight, target.body[0].weight)
    with pytest.raises(CheckpointError, match=r"w.pth: weights of another module: .*size mismatch") as caught:
        load_state(Grid(classes=5), tmp_path / "w.pth")
    assert "load_weights" in str(caught.value.hint)


def test_it_is_moved_and_put_into_eval_mode_as_one_of_ours() -> None:
    made = Adapted(grid(), "mine").double().eval()
    assert not made.module.training
    out: dict[str, Tensor] = made(torch.rand(1, 3, 16, 16, dtype=torch.float64))
    assert out["scores"].dtype == torch.float64
