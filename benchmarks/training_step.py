"""Where the time of a training step goes, and how often it waits for the device: four families, one process.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --families dac_detr --places      # which lines wait
    python benchmarks/training_step.py --device cuda --backbone r50 --size 800x1216 --images 2

The parts are run in turn, and the families in turn, round after round; printed is the median of each part.
`matching` is the cost of every prediction for every object, its copy to the host and the assignment there; `losses` is
the rest of the criterion. `matching by image` is no part of a step: the same as DETR's code does it, with a copy for
each layer and image, and its waits. Objects are drawn, 7 to an image on average as in COCO. Waits are counted on a
pretended device (`waits.py`), for the tiny backbone and small images: what the values are does not matter to them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from waits import DEVICE, Waits, far

from detrbench import models
from detrbench.data.loading import Batch
from detrbench.models.detector import Detector
from detrbench.models.matcher import Unmatched, assign, match, matching_cost
from detrbench.models.targets import Objects
from detrbench.models.tokens import Prediction
from detrbench.training import optimiser
from detrbench.training.recipe import Recipe
from detrbench.training.step import Part, train_step

FAMILIES = ("deformable_detr", "sparse_detr", "dino", "dac_detr")
MOST_OBJECTS, CLASSES = 14, 80
PARTS = ("forward", "matching", "losses", "backward", "optimiser")
RECIPE = Recipe()


@dataclass(frozen=True)
class Cost:
    """Of one step: milliseconds by part, and waits by the line that waits; the same of matching image by image."""

    family: str
    milliseconds: dict[str, float]
    waits: dict[str, int]
    by_image_milliseconds: float
    by_image_waits: int


def made_up_batch(images: int, height: int, width: int) -> Batch:
    """Images of noise, every other one padded at the right, with 0 to 14 objects each."""
    generator = torch.Generator().manual_seed(0)
    pixels, masks = torch.randn(images, 3, height, width, generator=generator), torch.zeros(images, height, width)
    masks[1::2, :, width * 3 // 4 :] = 1
    targets = []
    for count in torch.randint(0, MOST_OBJECTS + 1, (images,), generator=generator).tolist():
        boxes = torch.rand(count, 4, generator=generator) * 0.3 + 0.2
        targets.append({"labels": torch.randint(0, CLASSES, (count,), generator=generator), "boxes": boxes})
    return Batch(pixels, masks.bool(), targets, list(range(images)), torch.tensor([[height, width]] * images))


def detector_of(family: str, backbone: str) -> Detector:
    """In training mode, with random weights that are always the same."""
    torch.manual_seed(0)
    return models.create(f"{family}_{backbone}", num_classes=CLASSES).train()


@torch.no_grad()
def match_by_image(asked: Sequence[Unmatched]) -> list[list[list[np.ndarray]]]:
    """For each layer and image the query of each object, from costs that come to the host one image at a time."""
    found = []
    for each in asked:
        counts, logits, boxes = each.objects.counts, each.prediction.logits, each.prediction.boxes
        labels, wanted = each.objects.labels.split(counts), each.objects.boxes.split(counts)
        found.append(
            [
                [
                    _queries(Prediction(logits[layer, image], boxes[layer, image]), labels[image], wanted[image])
                    for image in range(len(counts))
                ]
                for layer in range(len(logits))
            ]
        )
    return found


def _queries(prediction: Prediction, labels: Tensor, boxes: Tensor) -> np.ndarray:
    """(Q, K) logits and (Q, 4) boxes, (n,) labels and (n, 4) boxes -> (n,) queries."""
    alone = Objects.of([{"labels": labels, "boxes": boxes}], prediction.boxes)
    cost = matching_cost(Prediction(prediction.logits[None, None], prediction.boxes[None, None]), alone)
    return assign(cost.cpu().numpy(), alone)[0]


class Step:
    """The parts of one training step, each to be called behind the other."""

    def __init__(self, detector: Detector, batch: Batch) -> None:
        self.detector, self.batch = detector, batch
        self.optim = optimiser.build(detector, RECIPE)
        self.out: Any = None
        self.total: Any = None

    def forward(self) -> None:
        torch.manual_seed(0)
        self.out = self.detector(self.batch.images, self.batch.masks, targets=self.batch.targets)

    def unmatched(self) -> list[Unmatched]:
        """What the criterion has matched."""
        objects = Objects.of(self.batch.targets, self.out.pred_boxes)
        asked = [term.unmatched(self.out, objects) for term in self.detector.criterion.terms]  # type: ignore[operator]
        return [each for each in asked if each is not None]

    def matching(self) -> None:
        match(self.unmatched())

    def by_image(self) -> None:
        match_by_image(self.unmatched())

    def criterion(self) -> None:
        criterion = self.detector.criterion
        self.total = criterion.total(criterion(self.out, self.batch.targets))

    def backward(self) -> None:
        self.optim.zero_grad(set_to_none=True)
        self.total.backward()

    def optimiser(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.detector.parameters(), RECIPE.clip_norm)
        self.optim.step()

    def milliseconds(self, device: str) -> dict[str, float]:
        """Of each part; the criterion matches too, which is taken off to give the losses."""
        found = {}
        for part in (self.forward, self.matching, self.by_image, self.criterion, self.backward, self.optimiser):
            start = time.perf_counter()
            part()
            if device == "cuda":
                torch.cuda.synchronize()
            found[part.__name__] = (time.perf_counter() - start) * 1e3
        found["losses"] = found.pop("criterion") - found["matching"]
        return {part: found[part] for part in (*PARTS, "by_image")}


def waits_of(family: str) -> dict[str, int]:
    """Waits of one whole step, logging included, by operation and line."""
    detector, batch = far(detector_of(family, "tiny")), made_up_batch(4, 64, 96)
    with Waits() as waits:
        train_step(detector, optimiser.build(detector, RECIPE), Part.of([batch]), RECIPE.clip_norm, 1.0)
    return dict(waits.by_place.most_common())


def waits_by_image(family: str) -> int:
    """Waits of matching image by image in such a step, where ours waits once."""
    step = Step(far(detector_of(family, "tiny")), made_up_batch(4, 64, 96))
    with Waits() as waits:
        step.batch = step.batch.to(DEVICE)
        step.forward()
        asked, before = step.unmatched(), waits.total
        match_by_image(asked)
        return waits.total - before


def costs(families: Sequence[str], backbone: str, batch: Batch, device: str, rounds: int) -> list[Cost]:
    """Of each family, run in turn."""
    batch = batch.to(device)
    steps = {family: Step(detector_of(family, backbone).to(device), batch) for family in families}
    for step in steps.values():  # warm up: the compiled op, caches
        step.milliseconds(device)
    found = [{family: step.milliseconds(device) for family, step in steps.items()} for _ in range(rounds)]
    medians = {
        family: {part: statistics.median(each[family][part] for each in found) for part in found[0][family]}
        for family in families
    }
    return [
        Cost(family, medians[family], waits_of(family), medians[family].pop("by_image"), waits_by_image(family))
        for family in families
    ]


def parser_of(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """Of a benchmark of steps: whose, of which images, on what."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES), help="which of them, by comma")
    parser.add_argument("--backbone", default="tiny", help="as in the names of models: tiny, r50")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--images", type=int, default=4, help="in a step")
    parser.add_argument("--size", default="64x96", help="of the images, HxW")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", action="store_true", help="one document on stdout")
    return parser


def batch_of(options: argparse.Namespace) -> Batch:
    """Images as the options of `parser_of` ask for them, not on the device yet; ends where there is no such device."""
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device")
    height, width = (int(side) for side in options.size.split("x"))
    return made_up_batch(options.images, height, width)


def words_of(options: argparse.Namespace) -> str:
    """What was timed, and where."""
    place = f"{options.device}, {torch.get_num_threads()} threads"
    return f"a step of {options.images} images of {options.size}, {options.backbone}, {place}"


def main() -> None:
    parser = parser_of(__doc__, rounds=3)
    parser.add_argument("--places", action="store_true", help="the lines that wait")
    options = parser.parse_args()
    batch = batch_of(options)
    found = costs(options.families.split(","), options.backbone, batch, options.device, options.rounds)
    if options.json:
        print(json.dumps({"torch": torch.__version__, "costs": [asdict(cost) for cost in found]}))
        return
    print(f"milliseconds of {words_of(options)}")
    form = "{:<28}" + "{:>11}" * (len(PARTS) + 1) + "{:>7}" + "{:>20}"
    print(form.format("family", *PARTS, "step", "waits", "matching by image"))
    for cost in found:
        times = [*cost.milliseconds.values(), sum(cost.milliseconds.values())]
        by_image = f"{cost.by_image_milliseconds:.1f} ({cost.by_image_waits} waits)"
        print(form.format(cost.family, *(f"{each:.1f}" for each in times), sum(cost.waits.values()), by_image))
        if options.places:
            print(*(f"    {count} {where}" for where, count in cost.waits.items()), sep="\n")


if __name__ == "__main__":
    main()
