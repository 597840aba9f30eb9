"""A results folder full of invented figures, for looking at the report and for its tests. None was measured."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from shipped_suites import cells, load

from detrbench import models, yaml12
from detrbench.measure import ap_images
from detrbench.measure.ap_interval import ClassMatches, Matches
from detrbench.measures import EVALUATED
from detrbench.report.identity import of_detector
from detrbench.suite import cells as suite_cells
from detrbench.suite import loading as suites

PARTS = ("backbone", "neck", "encoder", "queries", "decoder", "heads")
ENVIRONMENT = {
    "detrbench": "0.1.0",
    "python": "3.12.1",
    "torch": "2.11.0",
    "system": "fixture data of the tests: no figure was measured",
    "cpu": "Fixture CPU",
    "cores": 2,
    "threads": 2,
    "gpus": [],
    "driver": None,
    "variables": {"OMP_NUM_THREADS": "2"},
}
SETTINGS = {"data": "shapes", "num_train": 800, "num_val": 200, "image_size": 128, "shortest": 128, "epochs": 12}


def estimate(value: float, unit: str, n: int, half: float) -> dict[str, Any]:
    return {"value": value, "unit": unit, "n": n, "low": value - half, "high": value + half, "confidence": 0.95}


def complexity(gflops: float, protocol: str) -> dict[str, Any]:
    backbone, rest = 72.8, gflops - 72.8
    shares = dict(zip(PARTS, (0.0, 0.09, 0.62, 0.06, 0.2, 0.03), strict=True))
    by_part = {part: backbone if part == "backbone" else rest * share for part, share in shares.items()}
    return {
        "protocol": protocol,
        "protocol_version": 1,
        "convention": f"invented convention of {protocol}",
        "gflops": gflops,
        "gflops_by_part": by_part,
        "params_millions": 40.9,
        "params_millions_trainable": 40.7,
        "params_millions_by_part": dict.fromkeys(PARTS, 6.8),
        "inputs": [{"height": 800, "width": 1066, "weight": 1, "gflops": gflops}],
        "uncounted": {},
        "cross_check": {},
    }


def accuracy(ap: float, num_images: int) -> dict[str, Any]:
    stats = {"AP": ap, "AP50": ap + 20, "AP75": ap + 2, "APS": ap - 18, "APM": ap + 3, "APL": None}
    return {
        "protocol": "common",
        "protocol_version": 1,
        "convention": "COCO box AP, invented",
        "num_images": num_images,
        "stats": stats,
        "per_class": {"disc": ap, "star": ap - 1},
        "ap": estimate(ap, "points", num_images, 1.3),
        "ap50": estimate(ap + 20, "points", num_images, 1.6),
    }


def latency(median: float) -> dict[str, Any]:
    return {
        "protocol": "common",
        "protocol_version": 1,
        "convention": "forward only, invented",
        "device": "cpu",
        "dtype": "float32",
        "batch_size": 1,
        "height": 128,
        "width": 128,
        "threads": 2,
        "median_ms": estimate(median, "ms", 30, 0.02 * median),
        "p95_ms": median * 1.2,
        "fps": 1000 / median,
        "by_part_ms": dict(zip(PARTS, (median * s for s in (0.4, 0.05, 0.3, 0.05, 0.15, 0.05)), strict=True)),
        "samples_ms": [median],
        "warnings": [],
    }


def training(ap: float, epochs: int = 12) -> dict[str, Any]:
    curve = [
        {"epoch": e, "loss": 12 / (e + 1), "lr": 1e-4, "seconds": 20.0, "AP": ap * (1 - 0.9 ** (2 * e + 1))}
        for e in range(epochs)
    ]
    return {"recipe": {"epochs": epochs}, "epochs": curve, "seconds": 20.0 * epochs, "images_seen": 800 * epochs}


def image_matches(skill: float, images: int = 60) -> Matches:
    """Invented matches: equal images for all, and a detector that finds more the more skill it has."""
    rng = np.random.default_rng(0)
    objects = rng.integers(1, 4, images)
    image = np.repeat(np.arange(images), objects)
    hit = (rng.random((1, len(image))) < skill) & (rng.random((10, len(image))) < 0.9)
    return Matches(images, [ClassMatches(image, hit, np.zeros_like(hit), objects)])


def write_images(root: Path, cell: str, skill: float, ids: int = 60) -> None:
    """What each image contributed to the AP of a cell: of the accuracy record that `write_cell` writes."""
    matches = {"common": image_matches(skill)}
    for folder in root.glob(f"*/*/cells/{cell}-*"):
        (folder / "accuracy-images.npz").write_bytes(ap_images.pack(matches, list(range(ids - 60, ids)), folder.name))


def write_cell(folder: Path, cell: dict[str, Any], found: dict[str, dict[str, Any]], missing: dict[str, str]) -> None:
    """One cell: `found` maps measure to its records by protocol, `missing` maps measure to why it is not there."""
    at = folder / "cells" / f"{cell['id']}-0000abcd"
    at.mkdir(parents=True)
    (at / "cell.yaml").write_text(yaml12.dump(cell))
    measures: dict[str, Any] = {measure: {"state": "done", "why": None} for measure in found}
    measures |= {measure: {"state": "not_measured", "why": why} for measure, why in missing.items()}
    status = {"cell": cell["id"], "updated": "2026-01-02T03:04:05+00:00", "measures": measures}
    (at / "status.json").write_text(json.dumps(status))
    for measure, records in found.items():
        write_records(at, measure, records)


def write_seeds(root: Path, cell: str, found: list[tuple[float, float]]) -> None:
    """Further trainings of a cell of `quickstart`, with so much AP of such a skill."""
    (first,) = root.glob(f"quickstart/*/cells/{cell}-0000abcd")
    described = yaml12.load(first / "cell.yaml").value
    for number, (ap, skill) in enumerate(found, 1):
        another = {"id": f"{cell}#{number}", "seed_of": cell, "resolved": {**described["resolved"], "seed": number}}
        write_cell(first.parent.parent, {**described, **another}, {"accuracy": {"common": accuracy(ap, 200)}}, {})
        write_images(root, f"{cell}#{number}", skill)


def write_records(cell: Path, measure: str, records: dict[str, Any]) -> None:
    """The envelope of one measure of a cell, by protocol; its key names the cell, as no two are equal here."""
    envelope = {
        "schema": 1,
        "measure": measure,
        "key": cell.name,
        "created": "2026-01-02T03:04:05+00:00",
        "seconds": 1.0,
        "environment": ENVIRONMENT,
        "records": records,
    }
    (cell / f"{measure}.json").write_text(json.dumps(envelope))


def write_table6(root: Path, scale: str = "smoke", trained: bool = True) -> Path:
    """Focus-DETR's Table 6: Sparse rows measured (one of them not trained), the two DINO families not built yet."""
    rng = random.Random(0)
    folder = root / "focus_table6_keep_ratio" / scale
    folder.mkdir(parents=True)
    suite = {
        "name": "focus_table6_keep_ratio",
        "title": "Effect of the keep ratio",
        "description": "Invented figures: fixture data.",
        "published": "focus_detr/table6",
        "measure": ["complexity", "accuracy", "latency", "memory", "dam"],
        "report": {"sweep": "keep_ratio"},
        "scales": {scale: SETTINGS},
    }
    (folder / "suite.yaml").write_text(yaml12.dump(suite))
    names = {"sparse": "Sparse DETR", "sparse-dino": "DINO + Sparse DETR", "focus": "Focus-DETR (DINO)"}
    models = {"sparse": "sparse_detr_r50", "sparse-dino": "sparse_dino_r50", "focus": "focus_detr_r50"}
    for family, (prefix, name) in enumerate(names.items()):
        for i, keep in enumerate((0.1, 0.2, 0.3, 0.4, 0.5)):
            kept = {"keep_ratios": [keep] * 6} if prefix == "focus" else {"keep_ratio": keep}
            cell = {
                "id": f"{prefix}-{keep}",
                "suite": "focus_table6_keep_ratio",
                "scale": scale,
                "index": 5 * family + i,
                "model": models[prefix],
                "options": {**kept, "backbone": "tiny"},
                "complexity_options": {**kept, "backbone": "resnet50"},
                "row": {"model": name, "keep_ratio": keep},
                "protocols": ["sparse_table1"],
                "resolved": SETTINGS,
            }
            found: dict[str, dict[str, Any]] = {}
            missing = dict.fromkeys(suite["measure"], "not built yet")
            if prefix == "sparse":
                found, missing = _measured(keep, i, trained and keep != 0.4, rng)
            write_cell(folder, cell, found, missing)
    return root


def _measured(
    keep: float, i: int, trained: bool, rng: random.Random
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    ap = 41.0 + 14 * keep**0.5 + rng.uniform(-0.6, 0.6)
    found: dict[str, dict[str, Any]] = {
        "complexity": {
            "common": complexity(111.2 + 7.9 * i, "common"),
            "sparse_table1": complexity(105.4 + 7.55 * i, "sparse_table1"),
        },
        "latency": {"common": latency(21.0 + 30 * keep)},
        "memory": {"common": {"protocol": "common", "convention": "peak, invented", "forward_mib": 210.0 + 90 * keep,
                              "training_step_mib": 900.0 + 800 * keep, "process_peak_mib": 1800.0}},
    }  # fmt: skip
    if not trained:
        return found, dict.fromkeys(("accuracy", "dam"), "no checkpoint given and no training asked for")
    corr = {"protocol": "common", "convention": "Corr, invented", "corr": estimate(0.4 + keep / 2, "share", 200, 0.01),
            "std": 0.07, "per_level": [0.1, 0.2, 0.3, None], "kept_fraction": keep}  # fmt: skip
    found |= {
        "accuracy": {"common": accuracy(ap, 200)},
        "training": {"training": training(ap)},
        "dam": {"common": corr},
    }
    return found, {}


def write_quickstart(root: Path) -> Path:
    """A suite without a published table."""
    folder = root / "quickstart" / "smoke"
    folder.mkdir(parents=True)
    suite = {"name": "quickstart", "title": "Quickstart", "measure": ["complexity", "accuracy", "latency"],
             "report": {"sweep": "keep_ratio"}, "scales": {"smoke": SETTINGS}}  # fmt: skip
    (folder / "suite.yaml").write_text(yaml12.dump(suite))
    for i, (name, model, keep) in enumerate(
        [("deformable", "efficient_detr_r50", None), ("sparse-0.1", "sparse_detr_r50", 0.1),
         ("sparse-0.3", "sparse_detr_r50", 0.3), ("sparse-0.5", "sparse_detr_r50", 0.5)]
    ):  # fmt: skip
        options = {"backbone": "tiny", **({"keep_ratio": keep} if keep else {})}
        cell = {"id": name, "suite": "quickstart", "scale": "smoke", "index": i, "model": model,
                "options": options, "complexity_options": options, "row": None, "resolved": SETTINGS}  # fmt: skip
        found, _ = _measured(keep or 1.0, i, True, random.Random(i))
        del found["complexity"]["sparse_table1"], found["dam"], found["memory"]
        write_cell(folder, cell, found, {})
    return root


def write_shipped(root: Path, scale: str = "paper", names: list[str] | None = None) -> Path:
    """Shipped suites as a run leaves them: counts at paper scale, below it AP, latency, memory, Corr as well.

    Published rows are the papers' own; every count and every measured figure is invented.
    """
    for name in names or suites.names():
        loaded = load(name)
        if scale not in loaded.suite.scales:
            continue
        folder = root / name / scale
        folder.mkdir(parents=True)
        written = loaded.suite.model_dump(exclude_unset=True, mode="json")
        (folder / "suite.yaml").write_text(yaml12.dump(written))
        for cell in cells(name, scale):
            if cell.published_only:
                continue
            spec = models.resolve(str(cell.model), cell.complexity_options)
            rng = random.Random(json.dumps([spec.parts, spec.options], sort_keys=True, default=str))
            total = _invented_count(cell, rng)
            counted = {
                protocol: complexity(total / 100 if protocol == EVALUATED else total, protocol)
                for protocol in cell.protocols_of("complexity")
            }
            found: dict[str, dict[str, Any]] = {"complexity": counted}
            if scale != "paper":
                ap = 20 + 10 * rng.random()
                rules = {protocol: accuracy(ap, 200) for protocol in cell.protocols_of("accuracy")}
                corr = {"protocol": "common", "convention": "Corr, invented", "corr": estimate(0.6, "share", 200, 0.01),
                        "std": 0.07, "per_level": [0.1], "kept_fraction": 0.3}  # fmt: skip
                mine = {"accuracy": rules, "latency": {"common": latency(0.1 * total)}, "dam": {"common": corr},
                        "training": {"training": training(ap, 8)}}  # fmt: skip
                found |= {m: r for m, r in mine.items() if m in (*loaded.suite.measure, "training")}
            write_cell(folder, cell.describe(), found, {})
    return root


def _invented_count(cell: suite_cells.Cell, rng: random.Random) -> float:
    """About what such a detector costs, so that charts look as they do with real counts."""
    identity = of_detector(str(cell.model), cell.complexity_options)
    assert identity is not None
    dense = 245.0 if identity.base == "DINO" else 195.0
    encoder = 142.0 if identity.base == "DINO" else 90.0
    kept = 0.25 if identity.method.startswith("Lite") else 1.0 if identity.kept is None else identity.kept + 0.05
    fewer = 0.55 if identity.levels < 4 else 1.0
    return round((dense - encoder * (1 - kept)) * fewer + 4 * rng.random(), 2)


if __name__ == "__main__":
    import sys

    write_quickstart(write_table6(Path(sys.argv[1])))
