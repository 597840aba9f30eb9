"""How fast images are read for training, by this process when they are due and by worker processes ahead.

    python benchmarks/loader.py
    python benchmarks/loader.py --data ~/coco --workers 4 --images 512

Both read the same steps, at DETR's training sizes, in turn, round after round; printed are images a second, medians of
the rounds, and what a step waits for its images while it computes for `--step` milliseconds. Without `--data`, JPEGs of
640 x 480 pixels are made up, which are as large as COCO's but decode faster than photographs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detrbench.data import Dataset, DataSpec, open_dataset
from detrbench.data.loading import Batch, steps
from detrbench.data.order import Order
from detrbench.data.sizes import LONGEST, TRAIN_SCALES
from detrbench.data.transforms import Train
from detrbench.environment import cores

BATCH = 4


@dataclass(frozen=True)
class Cost:
    """Of reading with so many worker processes: images a second, and milliseconds that a step waits for its own."""

    workers: int
    images_per_second: float
    wait_milliseconds: float


def make_images(folder: Path, count: int) -> None:
    """A COCO folder of smooth noise with one object an image."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / f"{split}2017").mkdir(parents=True)
        images, objects = [], []
        for number in range(1, count + 1 if split == "train" else 2):
            name, coarse = f"{number:012}.jpg", rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{split}2017" / name)
            images.append({"id": number, "file_name": name, "width": 640, "height": 480})
            box = {"bbox": [100, 100, 200, 150], "area": 30000, "iscrowd": 0}
            objects.append({"id": number, "image_id": number, "category_id": 1, **box})
        document = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "noise"}]}
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(document))


def reading(dataset: Dataset, longest: int, workers: int) -> Generator[list[Batch], None, None]:
    """The steps of one epoch."""
    scales = [round(side * longest / LONGEST) for side in TRAIN_SCALES]
    transform = Train(scales=scales, longest=longest, crop=True)
    return steps(dataset, transform, Order(BATCH, seed=0), 2, epochs=[0], num_workers=workers)


def read(dataset: Dataset, longest: int, workers: int) -> float:
    """Images a second, from the first step to the last: processes that only start are no readers yet."""
    with closing(reading(dataset, longest, workers)) as loader:
        next(loader)
        start = time.perf_counter()
        count = sum(len(batch.image_ids) for batches in loader for batch in batches)
    return count / (time.perf_counter() - start)


def wait(dataset: Dataset, longest: int, workers: int, step: float) -> float:
    """Milliseconds that a step waits for its images, mean, where the work between takes `step` milliseconds."""
    waited = []
    with closing(reading(dataset, longest, workers)) as loader:
        next(loader)
        while True:
            time.sleep(step / 1e3)  # as a GPU's work, which asks nothing of the CPU
            start = time.perf_counter()
            if next(loader, None) is None:
                return statistics.mean(waited)
            waited.append((time.perf_counter() - start) * 1e3)


def costs(dataset: Dataset, longest: int, workers: list[int], step: float, rounds: int) -> list[Cost]:
    """With each number of worker processes, in turn."""
    found = [
        {count: (read(dataset, longest, count), wait(dataset, longest, count, step)) for count in workers}
        for _ in range(rounds)
    ]
    medians = {count: [statistics.median(each[count][k] for each in found) for k in (0, 1)] for count in workers}
    return [Cost(count, *medians[count]) for count in workers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set; its training images are read")
    parser.add_argument("--images", type=int, default=64, help="that are read")
    parser.add_argument("--longest", type=int, default=LONGEST, help="side of a training image, in pixels")
    parser.add_argument("--workers", type=int, default=min(2, cores()), help="processes that read ahead")
    parser.add_argument("--step", type=float, default=400.0, help="milliseconds that a step computes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one document on stdout")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = options.data or Path(made) / "data"
        if options.data is None:
            make_images(folder, options.images)
        dataset = open_dataset(DataSpec("coco", path=folder, limit=options.images), "train")
        found = costs(dataset, options.longest, [0, options.workers], options.step, options.rounds)
    if options.json:
        print(json.dumps({"cores": cores(), "costs": [asdict(cost) for cost in found]}))
        return
    step = f"{BATCH} a step of {options.step:g} ms"
    print(f"{options.images} images, longest side {options.longest}, {step}, {cores()} cores")
    print(f"{'workers':>8}{'images/s':>10}{'step waits ms':>15}")
    for cost in found:
        print(f"{cost.workers:>8}{cost.images_per_second:>10.1f}{cost.wait_milliseconds:>15.1f}")


if __name__ == "__main__":
    main()
