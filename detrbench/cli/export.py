"""`detrbench export`: a detector as an ONNX file, for runtimes without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from detrbench.cli import output
from detrbench.cli.output import Json, Results, Set
from detrbench.cli.source import Checkpoint, Data, Model, Source
from detrbench.cli.weights import Folder
from detrbench.data.sizes import photograph_size
from detrbench.errors import EnvironmentLacking, Findings

EXAMPLES = output.examples(
    "detrbench export quickstart:sparse-0.3 -o sparse.onnx",
    "detrbench export sparse_detr_r50 --checkpoint sparse_detr/r50_rho0.3 -o sparse.onnx --size 800x1066",
)


def command(
    model: Model,
    target: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The ONNX file to write.")],
    checkpoint: Checkpoint = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Images that it takes. Default: the evaluation's shortest side by 4:3."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch", min=1, max=1024, help="Images in a forward.")] = 1,
    set_: Set = None,
    data: Data = None,
    results_folder: Results = Path("results"),
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Write a detector as ONNX (opset 20): image size and batch are fixed, deformable attention becomes GridSample.

    The file takes `images`, normalised as for training and without padding, and gives `pred_logits` and `pred_boxes`.
    ONNX Runtime, where it is installed, runs it once, and its predictions are held against the detector's.
    """
    source = Source.of(model, checkpoint, output.settings(set_), data, results_folder)
    height, width = output.size(size) if size else photograph_size(*source.size[:2])

    from detrbench import models
    from detrbench.models.export import OPSET

    detector = source.load("cpu")
    about = {
        "model": source.model,
        "options": source.options,
        "classes": [source.names.get(label) for label in range(max(source.names, default=-1) + 1)],
    }
    output.note("writing the graph: half a minute or more")
    models.export_onnx(detector, target, (height, width), batch_size, about)
    checked = _held_against(detector, target, batch_size, height, width)
    if as_json:
        output.print_json({"file": str(target), "images": [batch_size, 3, height, width], "opset": OPSET, **checked})
        return
    megabytes = target.stat().st_size / 2**20
    output.say(f"{target}: {megabytes:.1f} MiB; images ({batch_size}, 3, {height}, {width}) in float32")
    if "reason" in checked:
        output.say(f"not held against the detector: {checked['reason']}")
    else:
        output.say(
            f"ONNX Runtime predicts what the detector does: scores and boxes differ by {checked['median']:.1e} in the "
            f"median of the queries, {checked['largest']:.1e} at most"
        )


def _held_against(detector: Any, target: Path, batch_size: int, height: int, width: int) -> dict[str, Any]:
    """Median and largest difference of a query's scores and box on random images, or the reason why there is none."""
    import torch

    from detrbench.measure.timing import noise
    from detrbench.models.export import TOLERANCE, InOnnxRuntime, differences

    try:
        exported = InOnnxRuntime(target, torch.get_num_threads())
    except EnvironmentLacking as error:
        return {"reason": str(error)}
    found = differences(detector, exported, noise(batch_size, height, width, seed=0))
    median, largest = float(found.median()), float(found.max())
    if median > TOLERANCE:
        raise Findings(
            f"{target}: ONNX Runtime predicts something else: {median:.2g} apart in the median of the queries"
        )
    return {"median": median, "largest": largest}
