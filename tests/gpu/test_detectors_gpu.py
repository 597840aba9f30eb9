"""Whole detectors on a CUDA device: what the CPU gives, what a step waits for, graphs, and a run from the command."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, small
from torch import Tensor
from training.test_waits import padded_batch

from detrbench import cli
from detrbench.data.loading import Batch
from detrbench.measure import latency, protocols, timing
from detrbench.measure.inference import evaluating
from detrbench.models.detector import Detector
from detrbench.training import optimiser
from detrbench.training.execution import Precision
from detrbench.training.recipe import BF16, FP16, Recipe
from detrbench.training.step import Part, train_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
CLASSES = 5


# Of equal scores a device takes any: with padding there are such, in the rows that are no proposals.
TIED = ("salience_detr", "sparse_detr")


def shaken(family: str) -> Detector:
    """In float64, with weights a little off those a training begins with: these sample at the very centres of pixels,
    where rounding chooses the side of a gradient's jump.
    """
    detector = small(family, CLASSES).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return detector


def batch(dtype: torch.dtype = torch.float64, padded: bool = True) -> Batch:
    """`padded_batch` at a size of which every level has several rows."""
    return padded_batch(96, 128, dtype, padded)


def stepped(detector: Detector, given: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of a training step, on the CPU."""
    torch.manual_seed(0)
    out = detector(given.images, given.masks, targets=given.targets)
    losses = detector.criterion(out, given.targets)
    detector.criterion.total(losses).backward()
    gradients = {name: p.grad.cpu() for name, p in detector.named_parameters() if p.grad is not None}
    return {name: loss.detach().cpu() for name, loss in losses.items()}, gradients


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_those_of_the_cpu(family: str) -> None:
    detector, given = shaken(family).eval(), batch(padded=family not in TIED)
    with torch.no_grad():
        expected = detector(given.images, given.masks)
        found = copy.deepcopy(detector).cuda()(given.images.cuda(), given.masks.cuda())
    torch.testing.assert_close(found.pred_logits.cpu(), expected.pred_logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.pred_boxes.cpu(), expected.pred_boxes, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_those_of_the_cpu(family: str) -> None:
    detector, given = shaken(family).train(), batch(padded=family not in TIED)
    losses, gradients = stepped(copy.deepcopy(detector), given)
    on_device, found = stepped(detector.cuda(), given.to(torch.device("cuda")))
    torch.testing.assert_close(on_device, losses, rtol=1e-9, atol=1e-9)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        largest = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-7 * largest + 1e-10, msg=name)


@pytest.mark.parametrize("precision", [BF16, FP16])
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_in_half_precision_are_nearly_those_in_float32(family: str, precision: str) -> None:
    device, given = torch.device("cuda"), batch(torch.float32)
    totals = []
    for each in (Precision("float32", device), Precision(precision, device)):
        detector = small(family, CLASSES).cuda().train()
        optim = optimiser.build(detector, Recipe())
        losses, _ = train_step(detector, optim, Part.of([given.to(device)]), 0.1, 1.0, precision=each)
        totals.append(losses["total"])
    assert totals[1] == pytest.approx(totals[0], rel=0.08)
    assert totals[1] != totals[0]


@pytest.mark.parametrize(("family", "expected"), [("deformable_detr", 2), ("sparse_detr", 3), ("dac_detr", 2)])
def test_a_step_waits_for_the_device_as_often_as_is_counted_without_one(family: str, expected: int) -> None:
    device = torch.device("cuda")
    detector = small(family, CLASSES).cuda().train()
    optim, part = optimiser.build(detector, Recipe()), Part.of([batch(torch.float32).to(device)])

    def step() -> Any:
        return train_step(detector, optim, part, 0.1, 1.0)

    step()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [f"{each.filename}:{each.lineno}" for each in caught if "synchroniz" in str(each.message)]
    assert len(waits) == expected, "\n".join(waits)


# NMS between the queries of Salience-DETR waits, as tests/models/test_forward_waits.py says.
GRAPHED = [family for family in FAMILIES if family != "salience_detr"]


@pytest.mark.parametrize("name", ["cuda_graph", "bfloat16_cuda_graph_batch4"])
@pytest.mark.parametrize("family", GRAPHED)
def test_a_forward_is_captured_in_a_graph(family: str, name: str) -> None:
    protocol = protocols.get("latency", name).at(96, 128, rounds=2)
    record = latency.measure({family: small(family, CLASSES).cuda()}, protocol)[family]
    assert record.median_ms.value > 0


@pytest.mark.parametrize("family", GRAPHED)
def test_a_replay_predicts_what_the_forward_does(family: str) -> None:
    protocol = protocols.get("latency", "cuda_graph").at(96, 128)
    detector, images = small(family, CLASSES).cuda(), timing.noise(2, 96, 128, seed=0).cuda()
    with evaluating(detector):
        expected = timing.forward(detector, protocol)(images).pred_boxes.clone()
        replay = timing._runner(detector, images, protocol)
        detector(timing.noise(2, 128, 96, seed=1).cuda(), None)  # what the graph reads is its own
        found = replay(images).pred_boxes
    apart = torch.cdist(expected, found, p=float("inf")).amin(-1)  # near ties may change places
    assert float(apart.median()) < 1e-4


SUITE = """
name: on_gpu
title: On a GPU
variants:
  - {id: deformable, model: deformable_detr_tiny}
  - {id: sparse, model: sparse_detr_tiny, options: {keep_ratio: 0.3}}
scales:
  smoke:
    {data: shapes, num_train: 32, num_val: 16, image_size: 96, epochs: 1, batch_size: 8, init: none,
     model: {width: 16, hidden_dim: 64, num_heads: 4, ffn_dim: 128, num_queries: 30, num_encoder_layers: 2,
             num_decoder_layers: 2}}
measure: [complexity, accuracy, latency, memory, dam, pictures]
protocols: [cuda_graph, batch4, bfloat16, bfloat16_cuda_graph_batch4]
"""


def test_a_suite_is_trained_measured_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "on_gpu.yaml").write_text(SUITE)
    results = str(tmp_path / "results")

    def typed(*arguments: str) -> None:
        code = cli.main([*arguments, "--results", results])
        assert code == 0, capsys.readouterr().err

    typed("run", str(tmp_path / "on_gpu.yaml"))
    typed("report", "-o", str(tmp_path / "report.html"))
    cells = list((tmp_path / "results").glob("on_gpu/smoke/cells/*"))
    assert len(cells) == 2
    for cell in cells:
        states = json.loads((cell / "status.json").read_text())["measures"]
        assert {entry["state"] for entry in states.values()} == {"done"}, states
        assert torch.cuda.get_device_name() in "".join(path.read_text() for path in cell.glob("*.json"))
    assert torch.cuda.get_device_name() in (tmp_path / "report.html").read_text()
