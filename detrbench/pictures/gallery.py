"""Which pictures there are: all of one image, and one panel of several detectors side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from detrbench.pictures import objects, queries, tokens
from detrbench.pictures.scene import Scene
from detrbench.pictures.sheet import Panel, Picture, sheet

SCORE = 0.3  # lowest score of a detection that is drawn, where nobody says another
COLUMNS = 5  # panels beside each other
MANY = 6  # so many detectors and more are shown on one image only


@dataclass(frozen=True)
class Exhibit:
    """A picture with its title and what a reader should know of it; `key` names its file."""

    key: str
    title: str
    caption: str
    picture: Picture


def of_image(scene: Scene, threshold: float) -> list[Exhibit]:
    """Everything that there is to see of one image.

    Args:
        scene: the image and what the detector did.
        threshold: lowest score of a detection that is drawn.
    """
    lead = f"{scene.name}:"
    legend = objects.LEGEND if scene.truth is not None else ()
    found = sheet([[objects.detections(scene, threshold, points=7.5)]], lead=lead, width=480, legend=legend)
    made = [
        Exhibit("detections", "Detections", _detected(threshold, scene.truth is not None), found),
        Exhibit("tokens", "Tokens that the encoder updates", KEPT_BY_LEVEL, tokens.kept_by_level(scene)),
        Exhibit("attention", "Where the decoder attends", ATTENTION, tokens.attention_by_level(scene)),
        Exhibit("sampling", "Sampling points", SAMPLING, _sampling(scene)),
    ]
    if scene.paths is not None:
        panels = [
            replace(queries.path(scene, scene.paths, run), head=head)
            for run, head in enumerate(("as it runs", "without self-attention"))
        ]
        picture = sheet([panels], lead=lead, width=320, legend=queries.ARRIVED)
        made.append(Exhibit("paths", "The path of the queries", PATHS, picture))
    return made


def side_by_side(scenes: Mapping[str, Sequence[Scene]], threshold: float) -> list[Exhibit]:
    """The same images seen by several detectors, a column each.

    Args:
        scenes: by detector; only images that all of them have are shown.
        threshold: lowest score of a detection that is drawn.
    """
    shown = _shared(scenes)
    if not shown:
        return []
    first = {name: images[0] for name, images in shown.items()}
    detected = _multiples(shown, lambda scene: objects.detections(scene, threshold))
    legend = objects.LEGEND if all(scene.truth is not None for scene in first.values()) else ()
    lead = "One row an image, one column a detector."
    made = [
        _kept(shown, lead),
        Exhibit("attention", "Where the decoder attends", ATTENTION,
              _arranged(_multiples(shown, tokens.attention), lead, tokens.ATTENTION)),
        Exhibit("detections", "Detections", _detected(threshold, bool(legend)), _arranged(detected, lead, legend)),
    ]  # fmt: skip
    return [*made, *_of_queries(first)]


def _kept(shown: Mapping[str, Sequence[Scene]], lead: str) -> Exhibit:
    """Tokens that the encoder updates; detectors that update the same share a column."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, images in shown.items():
        updated = tuple((scene.levels.tobytes(), scene.ever_kept.tobytes()) for scene in images)
        groups.setdefault(updated, []).append(name)
    drawn = {_heading(names): shown[names[0]] for names in groups.values()}
    shared = "".join(f" Drawn once, as they update the same: {', '.join(g)}." for g in groups.values() if len(g) > 1)
    picture = _arranged(_multiples(drawn, tokens.kept), lead)
    return Exhibit("kept", "Tokens that the encoder updates", KEPT + shared, picture)


def _heading(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _of_queries(first: Mapping[str, Scene]) -> Iterator[Exhibit]:
    """Sampling points and paths, of the detectors that have both kinds."""
    sampled = {name: (scene, scene.encoder) for name, scene in first.items() if scene.encoder is not None}
    if sampled:
        lines = [
            ("encoder", {name: queries.sampling(scene, layer, 0) for name, (scene, layer) in sampled.items()}),
            ("decoder", {name: queries.sampling(first[name], first[name].decoder, 0) for name in sampled}),
        ]
        scene, layer = next(iter(sampled.values()))
        lead = f"{scene.name}, its largest object; one column a detector."
        yield Exhibit("sampling", "Sampling points", SAMPLING, _arranged(lines, lead, queries.levels(scene, layer)))
    moved = {name: (scene, scene.paths) for name, scene in first.items() if scene.paths is not None}
    if moved:
        lines = [
            (side, {name: queries.path(scene, paths, run) for name, (scene, paths) in moved.items()})
            for run, side in enumerate(("as it runs", "no self-attention"))
        ]
        lead = f"{next(iter(moved.values()))[0].name}, its largest object; one column a detector."
        yield Exhibit("paths", "The path of the queries", PATHS, _arranged(lines, lead, queries.ARRIVED))


Line = tuple[str, Mapping[str, Panel]]  # (a word at its left, panel by detector)


def _shared(scenes: Mapping[str, Sequence[Scene]]) -> dict[str, list[Scene]]:
    """Images that every detector has, by name; a single one where there are many detectors."""
    having = {name: images for name, images in scenes.items() if images}
    names = [s.name for s in next(iter(having.values()), ()) if all(_find(i, s.name) for i in having.values())]
    if len(having) >= MANY:
        names = names[:1]
    return {key: [s for name in names if (s := _find(images, name))] for key, images in having.items()} if names else {}


def _find(images: Sequence[Scene], name: str) -> Scene | None:
    return next((scene for scene in images if scene.name == name), None)


def _multiples(shown: Mapping[str, Sequence[Scene]], draw: Callable[[Scene], Panel]) -> list[Line]:
    """A line for each image."""
    images = next(iter(shown.values()))
    return [(image.name, {name: draw(of[i]) for name, of in shown.items()}) for i, image in enumerate(images)]


def _arranged(lines: Sequence[Line], lead: str, legend: Sequence[tuple[str, str]] = ()) -> Picture:
    """Lines under each other; where they are too long, in blocks of all lines that show some of the detectors."""
    names = list(lines[0][1])
    rows, sides = [], []
    for start in range(0, len(names), COLUMNS):
        for index, (side, panels) in enumerate(lines):
            block = names[start : start + COLUMNS]
            rows.append([replace(panels[name], head="" if index else name) for name in block])
            sides.append(side)
    return sheet(rows, sides, lead, 200, legend)


def _sampling(scene: Scene) -> Picture:
    """A row for each side of the detector, a column for each object."""
    layers = [(side, layer) for side, layer in (("encoder", scene.encoder), ("decoder", scene.decoder)) if layer]
    rows = [[queries.sampling(scene, layer, i) for i in range(len(layer.boxes))] for _, layer in layers]
    legend = queries.levels(scene, layers[0][1])
    return sheet(rows, [side for side, _ in layers], f"{scene.name}, last layers:", 240, legend)


KEPT = (
    "The clearer a place, the more of its tokens (one per level) at least one encoder layer updates. Pale tokens reach "
    "the decoder as the neck made them."
)
KEPT_BY_LEVEL = (
    "One row per level, one column per group of layers that update the same tokens: clear where a token is updated, "
    "pale where it is not. The first column is the score that chose them, if there is one, scaled to 0..1 over the "
    "image. Red dots mark the tokens that attend to each other (dual attention)."
)
ATTENTION = (
    "The decoder's attention mass over all layers, heads and queries: the stronger the colour, the greater the mass "
    "(square root). Corr is the share that falls on kept tokens."
)
SAMPLING = (
    "Where a query of the last layer looks. Larger points have more weight. In the encoder the query "
    "is the updated token nearest to the middle of the object, marked by a cross; in the decoder the query whose box "
    "fits the object best."
)
PATHS = (
    "The queries that come nearest to the largest annotated object (without annotations, to the best detection), from "
    "where they start to their last box (dot), as the detector runs and with the self-attention of every decoder layer "
    "left out."
)


def _detected(threshold: float, annotated: bool) -> str:
    found = "; found means the right class at IoU 0.5 or more" if annotated else ""
    return f"Detections with a score of {threshold:g} or more{found}."
