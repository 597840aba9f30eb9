"""What a small detector computes, as figures that a file holds and a review can read.

Reads the public face only (`models.create`, the detector's output, its criterion, `models.postprocess`), so that a
change of structure leaves the figures as they are.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from detrbench import models
from detrbench.models.dam import corr, decoder_attention_map, kept_mask
from reference.small_cases import Case

FOLDER = Path(__file__).resolve().parent / "small"
# The file that holds `options()`.
OPTIONS = "options"
# A number, or of a tensor: shape, sum of magnitudes, sum, sum weighted by place, first values.
Figure = float | list[Any]
FIRST = 4
# Relative to the size of what is compared; gradients pass through more sums.
TOLERANCE, GRADIENT_TOLERANCE = 1e-9, 1e-7
# A gradient that vanishes but for rounding is compared to the detector's largest one.
VANISHING = 1e-15


def figures(case: Case) -> dict[str, Figure]:
    """Everything that is held of a case, by name."""
    detector = case.detector()
    images, masks, targets = case.batch()
    found: dict[str, Figure] = {}
    with torch.no_grad():
        out = detector(images, masks, trace=True)
    for name, tensor in _inference(out, case).items():
        found[f"inference.{name}"] = summary(tensor)
    with random_numbers(case.random):
        out = detector(images, masks, targets=targets, outputs="all")
        losses = detector.criterion(out, targets)
    predictions = _predictions(out)
    for name, prediction in predictions.items():
        found[f"{name}.logits"], found[f"{name}.boxes"] = summary(prediction.logits), summary(prediction.boxes)
    for name, tensor in _between(out).items():
        found[name] = summary(tensor)
    found |= {f"answers.{name}": rows for name, rows in _answers(losses, predictions).items()}
    if "loss_foreground" in losses:
        (slope,) = torch.autograd.grad(losses["loss_foreground"], out.encoded.foreground, retain_graph=True)
        found["foreground_labels"] = (slope < 0).nonzero().tolist()  # only a foreground token is to score higher
    found |= {f"loss.{name}": loss.item() for name, loss in losses.items()}
    found |= {f"weight.{name}": detector.criterion.weight(name) for name in losses}
    total = detector.criterion.total(losses)
    found["loss.total"] = total.item()
    total.backward()
    for name, parameter in detector.named_parameters():
        found[f"gradient.{name}"] = 0.0 if parameter.grad is None else parameter.grad.norm().item()
    return found


def _inference(out: Any, case: Case) -> dict[str, Tensor]:
    """Predictions, what the trace says of them, and detections."""
    trace = out.trace
    found = {"logits": out.pred_logits, "boxes": out.pred_boxes}
    attention = decoder_attention_map(trace.sampling_locations, trace.attention_weights, trace.spatial_shapes)
    found["dam"], found["padding"] = attention, trace.padding
    if trace.scores is not None:
        found["scores"] = trace.scores
    for layer, kept in enumerate(trace.kept_tokens):
        found[f"corr.{layer}"] = corr(attention, kept_mask(kept, attention.shape[1]))
        found |= {f"kept_tokens.{layer}.{image}": tokens for image, tokens in enumerate(kept)}
    for layer, chosen in enumerate(trace.object_tokens):
        found |= {f"object_tokens.{layer}.{image}": tokens for image, tokens in enumerate(chosen)}
    for layer, sampling in enumerate(trace.encoder_sampling):
        found[f"encoder_sampling.{layer}.locations"] = sampling.sampling_locations
        found[f"encoder_sampling.{layer}.weights"] = sampling.attention_weights
    sizes = [(2 * height, 3 * width) for height, width, _ in case.images]
    for name, options in {"top100": {"top": 100}, "top300": {"top": 300}, "nms": {"top": 100, "nms": 0.8}}.items():
        for image, each in enumerate(models.postprocess(out, sizes, **options)):
            found |= {f"{name}.{image}.scores": each.scores, f"{name}.{image}.labels": each.labels}
            found[f"{name}.{image}.boxes"] = each.boxes
    return found


def _predictions(out: Any) -> dict[str, Any]:
    """Every prediction that a loss reads, by name."""
    groups = {"layers": out.layers, "noised": out.noised, "one_to_many": out.one_to_many}
    groups["encoder"] = out.encoded.auxiliary
    if out.auxiliary is not None:
        groups |= {"cdecoder": out.auxiliary.layers, "cdecoder_noised": out.auxiliary.noised}
    found = {f"{name}.{index}": each for name, layers in groups.items() for index, each in enumerate(layers)}
    single = {"proposals": out.queries.proposals, "objectness": out.encoded.objectness}
    return found | {name: prediction for name, prediction in single.items() if prediction is not None}


def _between(out: Any) -> dict[str, Tensor]:
    """What the parts hand to each other."""
    found = {"memory": out.encoded.memory, "positions": out.tokens.positions, "features": out.tokens.features}
    found |= {"queries.content": out.queries.content, "queries.reference_points": out.queries.reference_points}
    optional = {"queries.position": out.queries.position, "queries.blocked": out.queries.blocked}
    optional |= {"scores": out.encoded.scores, "foreground": out.encoded.foreground}
    return found | {name: tensor for name, tensor in optional.items() if tensor is not None}


def _answers(losses: Mapping[str, Tensor], predictions: Mapping[str, Any]) -> dict[str, Any]:
    """(image, query) of each prediction that answers for an object: its box loss pulls at that box."""
    total = torch.stack([loss for name, loss in losses.items() if name.startswith("loss_bbox")]).sum()
    boxes = [prediction.boxes for prediction in predictions.values()]
    slopes = torch.autograd.grad(total, boxes, retain_graph=True, allow_unused=True)
    return {
        name: slope.abs().sum(-1).nonzero().tolist() for name, slope in zip(predictions, slopes) if slope is not None
    }


def summary(tensor: Tensor) -> Figure:
    """A tensor in a line: shape, sum of magnitudes, sum, sum weighted by place (to see exchanges), first values."""
    values = tensor.detach().double().flatten()
    place = torch.cos(torch.arange(1, len(values) + 1, dtype=torch.float64))
    sums = [values.abs().sum(), values.sum(), (values * place).sum()]
    return [list(tensor.shape), *map(float, sums), *values[:FIRST].tolist()]


@contextlib.contextmanager
def random_numbers(kind: str) -> Iterator[None]:
    """The same noise with every version of PyTorch: "drawn" by NumPy, or "pattern", a formula of the index."""
    generator = np.random.default_rng(0)

    def uniform(like: Tensor, **options: Any) -> Tensor:
        index = torch.arange(like.numel(), dtype=torch.float64).view(like.shape)
        drawn = torch.from_numpy(np.asarray(generator.random(tuple(like.shape))))
        return (drawn if kind == "drawn" else (0.37 * index + 0.11) % 1).to(options.get("dtype") or like.dtype)

    def integers(like: Tensor, low: int, high: int, **options: Any) -> Tensor:
        index = torch.arange(like.numel()).view(like.shape)
        drawn = torch.from_numpy(np.asarray(generator.integers(low, high, tuple(like.shape))))
        return (drawn if kind == "drawn" else low + (7 * index + 3) % (high - low)).to(like.dtype)

    def permutation(count: int, **options: Any) -> Tensor:
        return torch.from_numpy(generator.permutation(count))

    with (
        mock.patch.object(torch, "rand_like", uniform),
        mock.patch.object(torch, "randint_like", integers),
        mock.patch.object(torch, "randperm", permutation),
    ):
        yield


def changes(found: Mapping[str, Figure], recorded: Mapping[str, Figure]) -> dict[str, str]:
    """What differs, by name: by how much, relative to its size, or how."""
    gradients = [value for name, value in recorded.items() if name.startswith("gradient.") and isinstance(value, float)]
    vanishing = VANISHING * max(gradients, default=0.0)
    result = dict.fromkeys(found.keys() - recorded.keys(), "is new")
    result |= dict.fromkeys(recorded.keys() - found.keys(), "is gone")
    for name in found.keys() & recorded.keys():
        gradient = name.startswith("gradient.")
        change = _change(found[name], recorded[name], vanishing if gradient else 0.0)
        if isinstance(change, str):
            result[name] = change
        elif not change <= (GRADIENT_TOLERANCE if gradient else TOLERANCE):
            result[name] = f"changes by {change:.2g}"
    return result


def _change(found: Figure, recorded: Figure, vanishing: float) -> float | str:
    if isinstance(found, float) and isinstance(recorded, float):
        gap = abs(found - recorded)
        return 0.0 if gap <= vanishing else gap / max(abs(recorded), 1e-300)
    if not isinstance(found, list) or not isinstance(recorded, list):
        return "is of another kind"
    if not found or not recorded or not isinstance(found[-1], float) or found[0] != recorded[0]:
        return 0.0 if found == recorded else f"{_shortened(recorded)} -> {_shortened(found)}"
    count = max(int(np.prod(recorded[0])), 1)
    size = max(recorded[1], 1e-300)
    sums = [abs(ours - theirs) / size for ours, theirs in zip(found[1:4], recorded[1:4])]
    pairs = zip(found[4:], recorded[4:])
    return max(sums + [abs(ours - theirs) / max(abs(theirs), size / count) for ours, theirs in pairs])


def _shortened(value: Figure) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def options() -> dict[str, Any]:
    """What every option of every variant is set to, by code base where there are several: small cases override some."""
    found = {}
    for name in models.names():
        if name.endswith(("_r50", "vd")):  # RT-DETR's backbones change its options
            for source in (None, *models.describe(name).sources):
                spec = models.resolve(name, {} if source is None else {"source": source})
                prefix = name if source is None else f"{name}({source})"
                found |= {f"{prefix}.{key}": value for key, value in {**spec.parts, **spec.options}.items()}
    return found


def changed_options(found: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, str]:
    """Options that differ, by name, with their old and new value."""
    names = sorted(found.keys() | recorded.keys())
    pairs = {name: (recorded.get(name, "nothing"), found.get(name, "nothing")) for name in names}
    return {name: f"{old!r} -> {new!r}" for name, (old, new) in pairs.items() if old != new}


def read(name: str) -> dict[str, Any]:
    """The recorded figures of a case, or of `OPTIONS`; none where it was never recorded."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(name: str, found: Mapping[str, Any]) -> None:
    """Keep figures with twelve digits, a line each."""
    rows = [f"{json.dumps(key)}: {json.dumps(_rounded(value))}" for key, value in found.items()]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value
