"""`detrbench visualize`: what happens inside a detector, on a user's own images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from detrbench.cli import output
from detrbench.cli.output import Json, Results, Set
from detrbench.cli.source import Checkpoint, Data, Device, Images, Model, Source, Threshold, open_image, sample_of
from detrbench.cli.weights import Folder
from detrbench.errors import EnvironmentLacking, UsageError

if TYPE_CHECKING:
    from detrbench.pictures.gallery import Exhibit

EXAMPLES = output.examples(
    "detrbench visualize sparse_detr_r50 street.jpg --checkpoint sparse_detr/r50_rho0.3 -o street/",
    "detrbench visualize quickstart:sparse-0.3 photo.png -o inside.html",
    "detrbench visualize focus_detr_r50 *.jpg --checkpoint focus.pth --set keep_ratios=[.3,.3,.2,.2,.1,.1] --json",
)


def command(
    model: Model,
    images: Images,
    checkpoint: Checkpoint = None,
    target: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="DIR|FILE.html", help="A folder for PNG files and their page, or one HTML file."
        ),
    ] = Path("pictures"),
    set_: Set = None,
    data: Data = None,
    threshold: Threshold = 0.3,
    device: Device = "auto",
    results_folder: Results = Path("results"),
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Draw what happens inside a detector: kept tokens, attention, sampling points, the path of queries, detections."""
    _check(images, target)
    source = Source.of(model, checkpoint, output.settings(set_), data, results_folder)
    found = dict(_look(source, images, threshold, device))
    written = _write(f"{model}, weights {source.weights}", found, target)
    if as_json:
        pictures = [
            {"image": str(path), "key": entry.key, "title": entry.title, "alt": entry.picture.alt,
             "file": str(written.get((path, entry.key), target))}
            for path, entries in found.items() for entry in entries
        ]  # fmt: skip
        output.print_json({"model": model, "threshold": threshold, "pictures": pictures})
        return
    for path, entries in found.items():
        output.say(f"{path}: {len(entries)} pictures")
    output.say(str(target.resolve() if target.suffix == ".html" else (target / "index.html").resolve()))


def _check(images: list[Path], target: Path) -> None:
    if target.is_file() and target.suffix != ".html":
        raise UsageError(f"-o {target}: expected a folder or a name that ends in .html, got a file")
    stems = [path.stem for path in images]
    for stem in stems:
        if stems.count(stem) > 1 and target.suffix != ".html":
            hint = "give -o FILE.html, or another folder for each image"
            raise UsageError(f"-o {target}: pictures of two images would be called {stem}", hint=hint)


def _look(source: Source, images: list[Path], threshold: float, device: str) -> Iterator[tuple[Path, list[Exhibit]]]:
    """The pictures of each image; all images are opened before the first is looked at."""
    opened = {path: sample_of(open_image(path)) for path in images}

    from detrbench.data.transforms import evaluated
    from detrbench.environment import pick_device
    from detrbench.measure import pictures, protocols
    from detrbench.pictures import gallery

    detector: Any = source.load(pick_device(device))
    rule = protocols.get("pictures")
    for path, sample in opened.items():
        seen = evaluated(*source.size)
        scene = pictures.look(detector, sample, source.names, rule, path.name, seen, annotated=False)
        yield path, gallery.of_image(scene, threshold)


def _write(title: str, found: dict[Path, list[Exhibit]], target: Path) -> dict[tuple[Path, str], Path]:
    """The page, and in a folder a PNG file for each picture, by image and key."""
    from detrbench.files import Unwritable, write_atomic
    from detrbench.pictures import page

    alone = target.suffix == ".html"
    files = {(path, entry.key): target / f"{path.stem}-{entry.key}.png" for path in found for entry in found[path]}
    text = page.render(title, {str(path): entries for path, entries in found.items()})
    try:
        for path, entries in found.items():
            for entry in () if alone else entries:
                write_atomic(files[path, entry.key], entry.picture.png)
        write_atomic(target if alone else target / "index.html", text)
    except Unwritable as error:
        raise EnvironmentLacking(error.message, hint="give another place with -o") from error
    return {} if alone else files
