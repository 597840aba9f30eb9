"""What is whole before a fuzzer breaks it: a suite, data sets in each layout, predictions, weights, results."""

from __future__ import annotations

import functools
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import made_results
import numpy as np
import yaml
from PIL import Image

Files = dict[str, bytes]

SUITE: dict[str, Any] = {
    "name": "demo",
    "title": "A demonstration",
    "defaults": {"backbone": "tiny"},
    "variants": [
        {
            "id": "sparse-{keep_ratio}",
            "model": "sparse_detr_r50",
            "matrix": {"keep_ratio": [0.1, 0.3]},
            "scales": {"smoke": {"epochs": 3}},
            "note": "two rows",
            "protocols": ["sparse_table1"],
        },
        {"id": "borrower", "model": "sparse_detr_r50", "options": {"keep_ratio": 0.2}, "weights_of": "sparse-0.1"},
        {"id": "own", "model": "efficient_detr_tiny", "checkpoint": "gone.pth"},
        {"id": "old", "model": None, "published_only": True},
    ],
    "scales": {
        "smoke": {"data": "shapes", "num_train": 4, "num_val": 2, "image_size": 64, "epochs": 2, "lr": 1e-4},
        "mini": {"like": "mini", "model": {"num_queries": 30}},
        "paper": {"data": "coco", "shortest": 480, "longest": 800, "train_scales": [320, 480], "crop": False},
    },
    "default_scale": "smoke",
    "measure": ["complexity", "accuracy", "latency"],
    "report": {"sweep": "keep_ratio", "tables": [], "plots": []},
    "budgets": {
        "small": "gflops <= 100",
        "learns": "ap(sparse-*) >= 1",
        "ratio": "latency(own) <= 2 x latency(borrower)",
    },
}
BUDGETS: dict[str, Any] = {"suite": "demo.yaml", "scale": "smoke", "budgets": {"small": "gflops <= 120"}}
NAMES = ["car", "train", "brush"]


def picture(width: int, height: int, form: str = "png", seed: int = 0) -> bytes:
    """A small image."""
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def coco() -> dict[str, Any]:
    """Annotations of three images: ids out of order, a crowd, an object across the border, an image without any."""
    sizes = {30: (50, 40), 10: (64, 48), 20: (32, 32)}
    boxes = [(1, 10, 7, [4, 5, 20, 10], 0), (2, 10, 3, [50.2, 40, 13.9, 8.1], 0), (3, 10, 90, [0, 0, 64, 48], 1)]
    boxes.append((4, 30, 3, [1, 1, 5, 5], 0))
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": w, "height": h} for n, (w, h) in sizes.items()],
        "annotations": [
            {"id": n, "image_id": image, "category_id": kind, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for n, image, kind, box, crowd in boxes
        ],
        "categories": [{"id": number, "name": name} for number, name in zip((3, 7, 90), NAMES)],
    }


@functools.cache
def coco_images() -> Mapping[str, bytes]:
    """Their pictures, by the place of each in a data set."""
    records = coco()["images"]
    return {f"data/val2017/{r['file_name']}": picture(r["width"], r["height"], seed=r["id"]) for r in records}


def predictions() -> list[dict[str, Any]]:
    """Detections on the images of `coco`: a good one, one a little beside, a wrong class, a crowd's."""
    found = [(10, 7, [4, 5, 20, 10], 0.9), (10, 3, [49, 39, 14, 9], 0.7), (10, 90, [5, 5, 20, 20], 0.6)]
    found += [(30, 7, [1, 1, 5, 5], 0.8), (30, 3, [1.2, 1, 5, 5], 0.8), (20, 3, [0, 0, 8, 8], 0.1)]
    return [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, b, s in found]


def yolo() -> tuple[dict[str, Any], Files]:
    """data.yaml, and images with their labels."""
    settings = {"train": "images/train", "val": "images/val", "nc": 3, "names": NAMES}
    files = {f"data/images/{name}.png": picture(40, 20) for name in ("train/a", "train/b", "val/c")}
    files["data/labels/train/a.txt"] = b"0 0.5 0.5 0.2 0.4\n1 0.25 0.25 0.5 0.5\n"
    files["data/labels/train/b.txt"] = b""
    files["data/labels/val/c.txt"] = b"2 0.5 0.5 1 1\n"
    return settings, files


def roboflow() -> tuple[dict[str, Any], Files]:
    """Annotations as Roboflow writes them, and the images beside them."""
    document = coco()
    document["categories"] = [
        {"id": 0, "name": "project", "supercategory": "none"},
        *({**category, "supercategory": "project"} for category in document["categories"]),
    ]
    images = {place.replace("val2017", "valid"): content for place, content in coco_images().items()}
    return document, images


MODEL, SMALL = (
    "deformable_detr_tiny",
    {
        "hidden_dim": 32,
        "ffn_dim": 16,
        "num_heads": 2,
        "num_queries": 5,
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "num_classes": 3,
        "width": 4,
        "num_levels": 3,
    },
)


def small_model() -> list[str]:
    """What is typed to have the detector of `weights`."""
    return [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]


@functools.cache
def weights() -> dict[str, Any]:
    """The tensors of a detector of some thousand numbers."""
    import torch

    from detrbench import models

    torch.manual_seed(0)
    return dict(models.create(MODEL, **SMALL).state_dict())


@functools.cache
def results() -> Mapping[str, bytes]:
    """A results folder of two cells with every figure, and its suite."""
    with tempfile.TemporaryDirectory() as name:
        made = made_results.MadeResults(Path(name))
        suite = yaml.safe_load(made_results.SUITE)
        made.store.write_suite("demo", "smoke", {**suite, "budgets": {"small": "gflops <= 120"}})
        for cell, gflops, ap, skill in (("deformable", 100.0, 40.0, 0.5), ("sparse", 60.0, 38.0, 0.4)):
            made.gflops(cell, gflops)
            made.ap(cell, ap, skill)
            made.latency(cell, made_results.times(1, gflops / 10))
            made.put(cell, "memory", {"protocol_version": 1, "forward_mib": 200.0, "training_step_mib": None})
        made.state("published", "complexity", "not_measured", "published figures only")
        return {
            path.relative_to(name).as_posix(): path.read_bytes()
            for path in sorted(Path(name).rglob("*"))
            if path.is_file()
        }


def text_of(document: Any) -> bytes:
    """A document as a JSON file."""
    return json.dumps(document).encode()
