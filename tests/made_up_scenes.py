"""Scenes with invented arrays, for looking at pictures and for their tests. No detector made them."""

from __future__ import annotations

import numpy as np

from detrbench.pictures.scene import Objects, Paths, Sampling, Scene

LEVELS = np.array([[6, 8], [3, 4]])
TOKENS = 60


def scene(
    name: str = "image 1",
    keep: float = 0.5,
    annotated: bool = True,
    layers: int = 2,
    dual: bool = False,
    height: int = 60,
    width: int = 80,
) -> Scene:
    """A detector that keeps the best share of its tokens, the second half of its layers half as many."""
    rng = np.random.default_rng(7)
    scores = rng.random(TOKENS).astype(np.float32)
    order = (-scores).argsort()
    kept = np.zeros((layers, TOKENS), bool)
    for layer in range(layers):
        share = keep if 2 * layer < layers or not dual else keep / 2
        kept[layer, order[: round(share * TOKENS)]] = True
    objects = np.zeros((layers if dual else 0, TOKENS), bool)
    objects[:, order[:5]] = True
    mass = rng.random(TOKENS) ** 2
    parts = np.split(np.arange(TOKENS), [48])
    boxes = np.array([[0.1, 0.2, 0.4, 0.7], [0.5, 0.4, 0.9, 0.9], [0.0, 0.0, 0.2, 0.2]], np.float32)
    return Scene(
        name=name,
        pixels=ramp(height, width),
        names={0: "disc", 1: "star"},
        found=Objects(boxes, np.array([0, 1, 1]), np.array([0.9, 0.6, 0.1], np.float32)),
        truth=Objects(boxes[:2], np.array([0, 0]), np.ones(2, np.float32)) if annotated else None,
        levels=LEVELS,
        kept=kept,
        object_tokens=objects,
        scores=scores if keep < 1 else scores[:0],
        attention=np.sqrt(mass / mass.max()).astype(np.float32),
        corr=float(mass[kept.any(0)].sum() / mass.sum()),
        shares=np.array([mass[part].sum() for part in parts]) / mass.sum(),
        corr_by_level=np.array([mass[p][kept.any(0)[p]].sum() / mass[p].sum() for p in parts]),
        decoder=sampling(rng, boxes[:2]),
        encoder=sampling(rng, boxes[:2]),
        paths=paths(rng, boxes[0]),
    )


def ramp(height: int, width: int) -> np.ndarray:
    """(h, w, 3) uint8: red grows rightwards, green downwards."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x // width, 255 * y // height, np.full_like(x, 90)], -1).astype(np.uint8)


def sampling(rng: np.random.Generator, boxes: np.ndarray) -> Sampling:
    """Two heads, two levels, three points."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    spread = rng.normal(0, 0.15, (len(boxes), 2, 2, 3, 2)).astype(np.float32)
    weights = rng.random((len(boxes), 2, 2, 3)).astype(np.float32)
    weights /= weights.sum((2, 3), keepdims=True)
    return Sampling(boxes, centres, centres[:, None, None, None] + spread, weights)


def paths(rng: np.random.Generator, target: np.ndarray) -> Paths:
    """Four of nine queries through two layers; one arrives, or three without self-attention."""
    centres = rng.random((2, 3, 4, 2)).astype(np.float32)
    arrived = np.array([[True, False, False, False], [True, True, True, False]])
    return Paths(target, centres, arrived, np.array([[2, 1], [2, 3]]), 9)
