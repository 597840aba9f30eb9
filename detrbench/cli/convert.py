"""`detrbench convert`: an official checkpoint as safetensors under our names, with its origin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detrbench.cli import output
from detrbench.cli.output import Json, Set
from detrbench.cli.weights import Folder
from detrbench.errors import CheckpointError
from detrbench.weights import named

EXAMPLES = output.examples(
    "detrbench convert sparse_detr_r50_10.pth --model sparse_detr_r50 --set keep_ratio=0.1",
    "detrbench convert r50_deformable_detr.pth --model deformable_detr_r50 --to weights/deformable.safetensors",
)


def command(
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="CKPT", help="A checkpoint of a supported repository, or the name of released weights."),
    ],
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="The detector that it belongs to.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Default: CKPT, or the released file's name, with .safetensors."),
    ] = None,
    set_: Set = None,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Convert an official checkpoint. Loading is strict: every name and shape must fit the detector."""
    found = named.find(checkpoint, "CKPT")
    path = found.path
    target = to or (Path(path.name) if found.entry else path).with_suffix(".safetensors")
    if target.resolve() == path.resolve():
        raise CheckpointError(f"{path}: already exists", hint="name another file with --to")
    options = found.options(model, output.settings(set_))

    from detrbench import models
    from detrbench.models import checkpoints

    detector = models.create(model, **options)
    report = checkpoints.convert(detector, path, target)
    if as_json:
        output.print_json(
            {
                "file": str(target),
                "source": str(path),
                "source_sha256": report.sha256,
                "adapter": report.adapter,
                "tensors": report.loaded,
                "ignored": list(report.ignored),
            }
        )
    else:
        output.say(f"{target}: {report.loaded} tensors from {path} ({report.adapter} names)")
