"""The form for inference: the same outputs as the trained form, and a copy that leaves that one alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from families import FAMILIES, small
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from detrbench import models
from detrbench.models import inference
from detrbench.models.detector import Detector, DetectorOutput
from detrbench.models.encoders.across_levels import RepBlock
from detrbench.models.tokens import Tokens

IMAGES = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))
PADDED = torch.zeros(2, 96, 128, dtype=torch.bool)
PADDED[0, 64:], PADDED[1, :, 96:] = True, True
# Together they have every encoder, query selection and decoder.
QUICK = ("deformable_detr", "sparse_detr", "focus_detr", "lite_dino", "dn_deformable_detr", "rt_detr", "salience_detr")


def trained(detector: Detector) -> Detector:
    """With norms, biases and heads as training leaves them, rather than as they begin."""
    torch.manual_seed(2)
    for module in detector.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    for parameter in detector.parameters():
        parameter.data += torch.randn_like(parameter) * 0.02
    return detector.eval()


@torch.no_grad()
def gap(found: DetectorOutput, expected: DetectorOutput) -> float:
    """The largest difference, as a share of the largest number."""
    pairs = [(getattr(found, name), getattr(expected, name)) for name in ("pred_logits", "pred_boxes")]
    pairs.append((found.encoded.memory, expected.encoded.memory))
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


@torch.no_grad()
def gaps(detector: nn.Module, fast: nn.Module, images: Tensor = IMAGES, **more: Any) -> list[float]:
    return [gap(fast(images, mask, **more), detector(images, mask, **more)) for mask in (None, PADDED)]


@pytest.mark.parametrize(
    "family", [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in FAMILIES]
)
def test_every_family_gives_the_same_outputs(family: str) -> None:
    detector = trained(small(family, 5))
    fast = models.for_inference(detector)
    for _ in range(2):  # the second finds what the first one kept
        assert max(gaps(detector, fast)) < 1e-5
    assert max(gaps(detector, fast, outputs="all")) < 1e-5


@pytest.mark.parametrize(
    ("name", "least"),
    [("deformable_detr_r50", 90), ("sparse_detr_swin_t", 50), ("rt_detr_r18vd", 70), ("rt_detr_r50vd", 90)],
)
def test_backbones_of_the_papers_give_the_same_outputs(name: str, least: int) -> None:
    options = {"num_encoder_layers": 1, "num_decoder_layers": 1, "ffn_dim": 64, "num_queries": 20}
    detector = trained(models.create(name, **options))
    fast = models.for_inference(detector)
    assert max(gaps(detector, fast)) < 1e-5
    assert not [module for module in fast.modules() if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d)]
    changed = [module for module in fast.modules() if isinstance(module, inference._Faster)]
    assert len(changed) >= least


@pytest.mark.parametrize(("name", "count"), [("rt_detr", 12), ("salience_detr", 18)])
def test_branches_become_one_convolution(name: str, count: int) -> None:
    detector = trained(small(name, 5)).double()
    fast = models.for_inference(detector)
    before = [module for module in detector.modules() if isinstance(module, RepBlock)]
    after = [module for module in fast.modules() if isinstance(module, RepBlock)]
    assert len(before) == len(after) == count
    assert sum(hasattr(block, "narrow") for block in before) == count
    assert sum(hasattr(block, "narrow") for block in after) == 0
    x = torch.randn(2, 64, 6, 5).double()
    with torch.no_grad():
        assert max(float((one(x) - other(x)).abs().max()) for one, other in zip(before, after)) < 1e-12


def test_folding_is_exact_and_another_library_than_onednn_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = trained(small("sparse_detr", 5)).double()
    assert max(gaps(detector, models.for_inference(detector), IMAGES.double())) < 1e-13
    monkeypatch.setattr(inference, "_on_onednn", lambda x: False)
    assert max(gaps(detector.float(), models.for_inference(detector.float()))) < 1e-5


def test_images_of_another_size_are_placed_anew() -> None:
    detector = trained(small("sparse_detr", 5))
    fast = models.for_inference(detector)
    for size in ((96, 128), (128, 96), (96, 120), (96, 128)):
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            assert gap(fast(images), detector(images)) < 1e-5


def test_places_are_worked_out_once_for_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    worked: list[str] = []
    for name in ("cell_centres", "encoder_reference_points", "proposals"):
        real = getattr(Tokens, name)
        monkeypatch.setattr(Tokens, name, lambda self, name=name, real=real: worked.append(name) or real(self))
    fast = models.for_inference(small("sparse_detr", 5))
    with torch.no_grad():
        for _ in range(3):
            fast(IMAGES)
    assert sorted(worked) == ["cell_centres", "encoder_reference_points", "proposals"]


def test_a_trace_is_the_same() -> None:
    detector = trained(small("focus_detr", 5))
    with torch.no_grad():
        one, other = (each(IMAGES, PADDED, trace=True).trace for each in (models.for_inference(detector), detector))
    for found, expected in zip(one.kept_tokens, other.kept_tokens, strict=True):
        assert [tokens.tolist() for tokens in found] == [tokens.tolist() for tokens in expected]
    for found, expected in zip(one.encoder_sampling, other.encoder_sampling, strict=True):
        torch.testing.assert_close(found.attention_weights, expected.attention_weights, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.sampling_locations, expected.sampling_locations, rtol=1e-4, atol=1e-5)


def test_the_detector_stays_as_it_is() -> None:
    detector = trained(small("deformable_detr", 5)).train()
    before = copy.deepcopy(detector.state_dict())
    classes = [type(module) for module in detector.modules()]
    wants = [parameter.requires_grad for parameter in detector.parameters()]
    fast = models.for_inference(detector)
    with torch.no_grad():
        fast(IMAGES)
    assert detector.training
    assert not fast.training
    assert [type(module) for module in detector.modules()] == classes
    assert [parameter.requires_grad for parameter in detector.parameters()] == wants
    assert all(torch.equal(before[name], tensor) for name, tensor in detector.state_dict().items())
    assert not any(parameter.requires_grad for parameter in fast.parameters())


def test_it_can_be_copied_after_it_has_run() -> None:
    detector = trained(small("deformable_detr", 5))
    fast = models.for_inference(detector)
    with torch.no_grad():
        expected = fast(IMAGES)
        for other in (copy.deepcopy(fast), models.for_inference(fast)):
            assert gap(other(IMAGES), expected) == 0


class Own(nn.Linear):
    """A layer of a user's own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_what_is_not_known_stays_as_it_is() -> None:
    norm = nn.BatchNorm2d(4)
    norm.running_mean.fill_(0.5)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        norm,
        nn.ReLU(),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Flatten(),
        Own(4 * 96 * 128, 2),
    ).eval()
    fast = models.for_inference(network)
    assert [type(module) for module in fast] == [type(module) for module in network]
    torch.testing.assert_close(fast(IMAGES), network(IMAGES), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_a_convolution_takes_up_the_norm_and_the_relu_behind_it(bias: bool, relu: bool) -> None:
    norm = nn.BatchNorm2d(4)
    for tensor in (norm.running_mean, norm.bias.data, norm.weight.data):
        tensor.normal_()
    layers = [nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=bias), norm, nn.ReLU() if relu else nn.GELU()]
    network = nn.Sequential(*layers).eval()
    fast = models.for_inference(network)
    assert type(fast[1]) is nn.Identity
    assert (type(fast[2]) is nn.Identity) == relu
    torch.testing.assert_close(fast(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)
