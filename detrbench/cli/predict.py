"""`detrbench predict`: detections on images, drawn or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from detrbench.cli import output
from detrbench.cli.output import Json, Results, Set
from detrbench.cli.source import Checkpoint, Data, Device, Images, Model, Source, Threshold, open_image, sample_of
from detrbench.cli.weights import Folder
from detrbench.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

EXAMPLES = output.examples(
    "detrbench predict sparse_detr_r50 street.jpg --checkpoint sparse_detr/r50_rho0.3 -o out.png",
    "detrbench predict quickstart:sparse-0.3 photo.png -o out/",
    "detrbench predict sparse_detr_r50 *.jpg --checkpoint weights.safetensors --json",
)


def command(
    model: Model,
    images: Images,
    checkpoint: Checkpoint = None,
    target: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE|DIR", help="Where to save the drawn images.")
    ] = None,
    set_: Set = None,
    data: Data = None,
    threshold: Threshold = 0.3,
    device: Device = "auto",
    results_folder: Results = Path("results"),
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Detect objects in images. Boxes are drawn with -o; without it (or with --json) they are printed."""
    targets = _targets(images, target)
    source = Source.of(model, checkpoint, output.settings(set_), data, results_folder)
    pictures = [open_image(path) for path in images]

    from detrbench.environment import pick_device

    detector = source.load(pick_device(device))
    found = [detect(source, detector, picture, threshold) for picture in pictures]
    for picture, objects, path in zip(pictures, found, targets, strict=False):
        save(draw(picture, objects), path)
    if as_json:
        records = [{"image": str(path), "detections": objects} for path, objects in zip(images, found, strict=True)]
        output.print_json({"model": model, "threshold": threshold, "images": records})
        return
    for i, (path, objects) in enumerate(zip(images, found, strict=True)):
        output.say(f"{path}: {len(objects)} objects" + (f", drawn in {targets[i]}" if targets else ""))
        for each in () if targets else objects:
            box = ", ".join(f"{value:.1f}" for value in each["box"])
            output.say(f"  {each['name']}  {each['score']:.3f}  [{box}]")


def _targets(images: list[Path], target: Path | None) -> list[Path]:
    """A file for each image: `-o` itself for one image, else files in that folder."""
    if target is None:
        return []
    if len(images) == 1 and target.suffix and not target.is_dir():
        return [target]
    if target.suffix and not target.is_dir():
        raise UsageError(f"-o {target}: expected a folder for {len(images)} images, got a file's name")
    targets = [target / f"{path.stem}.png" for path in images]
    for path in targets:
        if targets.count(path) > 1:
            raise UsageError(f"-o {target}: two images would be drawn in {path}")
    return targets


def detect(source: Source, detector: Any, picture: Image.Image, threshold: float) -> list[dict[str, Any]]:
    """Objects, best first: name, label, score, box x1 y1 x2 y2 in pixels."""
    import torch

    from detrbench import models
    from detrbench.data.transforms import evaluated

    image = evaluated(*source.size)(sample_of(picture))[0].to(next(detector.parameters()).device)
    with torch.inference_mode():
        out = detector(image[None], None)
    found = models.postprocess(out, [(picture.height, picture.width)])[0]
    return [
        {
            "name": source.names.get(label, f"class {label}"),
            "label": label,
            "score": score,
            "box": _inside(box, picture),
        }
        for score, label, box in zip(found.scores.tolist(), found.labels.tolist(), found.boxes.tolist(), strict=True)
        if score >= threshold
    ]


def _inside(box: list[float], picture: Image.Image) -> list[float]:
    limits = (picture.width, picture.height) * 2
    return [min(max(value, 0.0), float(limit)) for value, limit in zip(box, limits, strict=True)]


def draw(picture: Image.Image, objects: list[dict[str, Any]]) -> Image.Image:
    """The image with a box and a readable label for each object, the best on top."""
    from PIL import ImageDraw, ImageFont

    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    unit = max(min(picture.size) / 250, 1.0)  # a line that shows on large images too
    font = ImageFont.load_default(size=max(11.0, 7 * unit))
    for each in reversed(objects):
        colour = _colour(each["label"])
        x1, y1, x2, y2 = each["box"]
        pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=max(2, round(unit)))
        text = f"{each['name']} {each['score']:.2f}"
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        width, height = right - left + 6, bottom - top + 6
        x = min(max(x1, 0), max(picture.width - width, 0))
        y = y1 - height if y1 >= height else min(y1, picture.height - height)
        pen.rectangle((x, y, x + width, y + height), fill=colour)
        pen.text((x + 3 - left, y + 3 - top), text, fill=_ink(colour), font=font)
    return drawn


def _colour(label: int) -> tuple[int, int, int]:
    """A strong colour for each class; neighbours differ most."""
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(label * 0.61803 % 1.0, 0.85, 0.9 - 0.25 * (label % 3 == 1))
    return round(255 * red), round(255 * green), round(255 * blue)


def _ink(colour: tuple[int, int, int]) -> str:
    red, green, blue = colour
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def save(picture: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except ValueError as error:
        raise UsageError(f"-o {path}: {error}", hint="use a name that ends in .png or .jpg") from error
    except OSError as error:
        from detrbench.errors import EnvironmentLacking

        raise EnvironmentLacking(f"{path}: cannot be written: {error.strerror or error}") from error
