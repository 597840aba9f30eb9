"""What a detector sees and does in a few images, as arrays from which pictures are drawn.

Shapes: S tokens, Q queries, T - 1 decoder layers, M heads, L levels, P points. Boxes that leave here are x1, y1, x2, y2
as fractions of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou, nms

from detrbench import models
from detrbench.data import Dataset, Sample
from detrbench.data.samples import class_names
from detrbench.data.sizes import resized_size
from detrbench.data.transforms import Eval, Stretch
from detrbench.measure import dam
from detrbench.measure.inference import Progress, evaluating
from detrbench.measure.protocols.pictures import PicturesProtocol
from detrbench.models.boxes import cxcywh_to_xyxy
from detrbench.models.dam import decoder_attention_map, kept_mask
from detrbench.models.detector import Detector, DetectorOutput
from detrbench.models.trace import Trace
from detrbench.pictures.scene import Array, Objects, Paths, Sampling, Scene
from detrbench.results.records import Pictures

ON_TARGET = 0.5  # IoU from which on a query is on an object


def take(
    detector: Detector,
    dataset: Dataset,
    protocol: PicturesProtocol,
    device: torch.device | str = "cpu",
    transform: Eval | Stretch | None = None,
    progress: Progress | None = None,
) -> tuple[Pictures, list[Scene]]:
    """The record and the scenes of the images that the protocol names; arguments as `accuracy.collect` takes them."""
    detector.to(device)
    chosen, names = choose(dataset, protocol.images), class_names(dataset)
    scenes = []
    for number, index in enumerate(chosen, start=1):
        sample = dataset[index]
        name = f"image {dataset.image_ids[index]}"
        scenes.append(look(detector, sample, names, protocol, name, transform or Eval(), annotated=True))
        if progress is not None:
            progress(number, len(chosen))
    record = Pictures(
        protocol=protocol.name,
        protocol_version=protocol.version,
        convention=protocol.convention,
        image_ids=[dataset.image_ids[index] for index in chosen],
        num_tokens=[scene.ever_kept.size for scene in scenes],
        num_kept=[int(scene.ever_kept.sum()) for scene in scenes],
        corr=[scene.corr for scene in scenes],
    )
    return record, scenes


def choose(dataset: Dataset, most: int) -> list[int]:
    """Indices of the first images with two objects or more, filled up with the first others."""
    counts = dict.fromkeys(dataset.image_ids, 0)
    for annotation in dataset.coco_ground_truth()["annotations"]:
        counts[annotation["image_id"]] += not annotation["iscrowd"]
    order = sorted(range(len(dataset)), key=lambda index: counts[dataset.image_ids[index]] < 2)  # stable
    return sorted(order[:most])


def look(
    detector: Detector,
    sample: Sample,
    names: dict[int, str],
    protocol: PicturesProtocol,
    name: str,
    transform: Eval | Stretch,
    annotated: bool,
) -> Scene:
    """One image through the detector.

    Args:
        detector: run in eval mode, wherever it is.
        sample: the image with its objects.
        names: label -> class.
        protocol: how much is kept.
        name: what the image is called.
        transform: the test transform.
        annotated: whether `sample` says what is in the image.
    """
    image, target = transform(sample)
    with evaluating(detector):
        out = detector(image[None].to(next(detector.parameters()).device), outputs="all", trace=True)
        trace = out.trace
        assert trace is not None
        found = _found(out, protocol.detections)
        truth = _truth(target) if annotated else None
        objects = _objects(truth or found, protocol.objects)
        attention = decoder_attention_map(trace.sampling_locations, trace.attention_weights, trace.spatial_shapes)[0]
        corr, _, *corr_by_level = dam.of_trace(trace)[0].tolist()
        return Scene(
            name=name,
            pixels=_small(sample.image, protocol.longest),
            names={label: names[label] for label in _labels(found, truth) if label in names},
            found=found,
            truth=truth,
            levels=np.array(trace.spatial_shapes),
            kept=_masks(trace.kept_tokens, trace),
            object_tokens=_masks(trace.object_tokens, trace),
            scores=np.zeros(0, np.float32) if trace.scores is None else _scaled(trace.scores[0]),
            attention=_array((attention / attention.max()).sqrt()),
            corr=corr,
            shares=np.array([float(level.sum() / attention.sum()) for level in trace.by_level(attention[None])]),
            corr_by_level=np.array(corr_by_level),
            decoder=_of_decoder(out, trace, objects),
            encoder=_of_encoder(trace, objects),
            paths=_paths(detector, out, trace, objects[0], protocol.queries),
        )


def _small(image: Image.Image, longest: int) -> Array:
    size = resized_size(*image.size, longest, longest)
    return np.array(image.resize(size, Image.Resampling.LANCZOS) if max(image.size) > longest else image)


def _labels(*groups: Objects | None) -> list[int]:
    return sorted({int(label) for group in groups if group is not None for label in group.labels})


def _found(out: DetectorOutput, most: int) -> Objects:
    best = models.postprocess(out, [(1, 1)], top=most)[0]
    return Objects(_array(best.boxes.clamp(0, 1)), best.labels.cpu().numpy(), _array(best.scores))


def _truth(target: dict[str, Tensor]) -> Objects:
    boxes = cxcywh_to_xyxy(target["boxes"]).clamp(0, 1)
    return Objects(_array(boxes), target["labels"].numpy(), np.ones(len(boxes), np.float32))


def _objects(group: Objects, most: int) -> Tensor:
    """(k, 4) boxes to look at, that hardly overlap: the largest annotated ones, or the best detections."""
    if not len(group.boxes):
        return torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    sides = group.boxes[:, 2:] - group.boxes[:, :2]
    boxes = torch.from_numpy(group.boxes[np.lexsort((-sides.prod(1), -group.scores))])
    return boxes[nms(boxes, -torch.arange(len(boxes), dtype=boxes.dtype), ON_TARGET)[:most]]


def _masks(tokens: Sequence[Sequence[Tensor]], trace: Trace) -> Array:
    """[layer][image] indices of the only image -> (layers, S) bool."""
    rows = [kept_mask(layer, trace.padding.shape[1])[0].cpu().numpy() for layer in tokens]
    return np.stack(rows) if rows else np.zeros((0, trace.padding.shape[1]), bool)


def _scaled(scores: Tensor) -> Array:
    """Probabilities keep their order and spread better where most of them are small: least 0, most 1."""
    values = scores.sigmoid()
    return _array((values - values.min()) / (values.max() - values.min()).clamp(min=1e-12))


def _of_decoder(out: DetectorOutput, trace: Trace, objects: Tensor) -> Sampling:
    """The query whose box fits each object best."""
    boxes = cxcywh_to_xyxy(out.pred_boxes[0])
    rows = box_iou(objects.to(boxes), boxes).argmax(1)
    locations, weights = trace.sampling_locations[-1][0, rows], trace.attention_weights[-1][0, rows]
    centres = trace.reference_points[-1][0, rows, :2]
    return Sampling(_array(objects), _array(centres), _array(locations), _array(weights))


def _of_encoder(trace: Trace, objects: Tensor) -> Sampling | None:
    """The query nearest to the middle of each object."""
    if not trace.encoder_sampling:
        return None
    last = trace.encoder_sampling[-1]
    places = last.reference_points[0, :, 0]
    middles = (objects[:, :2] + objects[:, 2:]).to(places) / 2
    rows = torch.cdist(middles, places).argmin(1)
    arrays = (places[rows], last.sampling_locations[0, rows], last.attention_weights[0, rows])
    return Sampling(_array(objects), *(_array(array) for array in arrays))


def _paths(detector: Detector, out: DetectorOutput, trace: Trace, target: Tensor, most: int) -> Paths:
    """Where queries go with and without self-attention; those are shown that come nearest to the target."""
    alone = detector.decoder(out.queries, out.encoded, out.tokens, detector.heads, "all", mixing_layers=0)
    start = trace.reference_points[0][0, :, :2]
    centres, fits = [], []
    for decoded in (out.decoded, alone):
        pairs = enumerate(zip(decoded.states, decoded.reference_points))
        boxes = torch.stack([detector.heads(i, state, reference).boxes[0] for i, (state, reference) in pairs])
        centres.append(torch.cat([start[None], boxes[..., :2]]))  # (T, Q, 2)
        fits.append(torch.stack([box_iou(target[None].to(b), cxcywh_to_xyxy(b))[0] for b in boxes]) >= ON_TARGET)
    both, on_target = torch.stack(centres), torch.stack(fits)  # (2, T, Q, 2), (2, T - 1, Q)
    middle = (target[:2] + target[2:]).to(both) / 2
    rows = (both - middle).norm(dim=-1).amin((0, 1)).argsort(stable=True)[:most]
    return Paths(
        target=_array(target),
        centres=_array(both[:, :, rows]),
        arrived=on_target[:, -1, rows].cpu().numpy(),
        on_target=on_target.sum(-1).cpu().numpy(),
        num_queries=both.shape[2],
    )


def _array(tensor: Tensor) -> Array:
    return tensor.float().cpu().numpy()
