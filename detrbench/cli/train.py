"""`detrbench train`: one model on a user's own images, from the folder to AP, drawn detections and a report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from detrbench.cli import output, run, validate
from detrbench.cli.output import Json, Results, Set
from detrbench.cli.weights import Folder
from detrbench.errors import UsageError
from detrbench.files import at_home, write_atomic
from detrbench.results import address
from detrbench.results.folder import SCHEMA
from detrbench.results.store import CellResult, ResultsStore
from detrbench.weights import named

EXAMPLES = output.examples(
    "detrbench train sparse_detr_r50 --data ~/cells",
    "detrbench train sparse_detr_r50 --data ~/cells_yolo --init-from sparse_detr/r50_rho0.3",
    "detrbench train efficient_detr_tiny --data ~/cells -s epochs=20 -s shortest=320 -s hidden_dim=64",
    "detrbench train dino_r50 --data ~/cells --gpus 4",
    "detrbench train dino_r50 --data ~/cells --dry-run > cells.yaml   # the suite that this stands for",
)

DRAWN = 8
"""Validation images on which detections are drawn."""


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model: detrbench list models.")],
    data: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The images: COCO folder, Roboflow's COCO export, or YOLO with data.yaml."),
    ],
    init_from: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="Start from these weights: a file, official or converted; a name from `detrbench weights list`; or "
            "hf:ORG/REPO/FILE. Class heads are replaced where the classes differ.",
        ),
    ] = None,
    set_: Set = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name in the results. Default: the name of the data folder.")
    ] = None,
    results_folder: Results = Path("results"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    gpus: run.Gpus = 1,
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="Do not draw detections below this score.")] = 0.3,
    folder: Folder = None,
    tensorboard: run.TensorBoard = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the suite that would be run, without running it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a detector on your own images, measure its AP, draw what it finds, and write a report.

    The same command goes on where it was interrupted, and does nothing twice. Image size, epochs and rates follow from
    the data and the model's paper; change any with --set, as in a suite: epochs, batch_size, lr, shortest (pixels of
    the short side), crop, train_scales, seed, ...; options of the model as model.OPTION. Train several models on one
    folder, and the report compares them.
    """
    from detrbench.environment import pick_device
    from detrbench.run import executors

    device, gpus = pick_device(device), run.processes(gpus)
    if run.helps_another(device, dry_run):
        return
    chosen = _chosen(output.settings(set_), init_from)
    _say_what_was_understood(data)
    suite = _suite(name, model, data, chosen)
    prepared = _prepare(suite, chosen, data, results_folder, device, gpus, tensorboard)
    if dry_run:
        output.print_yaml(_written_out(suite, prepared))
        output.note(run.headline(prepared))
        return
    output.note(_how(prepared.cells[0].settings))
    with executors.opened(executors.LOCAL, prepared.options, None, {}) as here:
        run.refuse_failed(run.execute([prepared], here, as_json))
    result = _result(prepared, results_folder)
    drawn = _draw(result, prepared.cells[0].settings.data_spec, threshold, prepared.options.device)
    page = _report(prepared.loaded.suite.name, results_folder)
    _tell(result, drawn, page, as_json)
    if not as_json:
        output.note(f"next: {_prediction(result, results_folder)}")


def _chosen(settings: dict[str, Any], init_from: str | None) -> dict[str, Any]:
    for key in ("data", "path"):
        if key in settings:
            raise UsageError(f"--set {key}: the data are those of --data", hint="give --data DIR")
    if init_from is None:
        return settings
    if "init_from" in settings:
        raise UsageError("--init-from and --set init_from: expected one of them")
    return {**settings, "init_from": named.beside(Path.cwd(), init_from)}


def _say_what_was_understood(data: Path) -> None:
    from detrbench.data.layouts.split import HARMLESS
    from detrbench.data.validate import inspect

    found = inspect(at_home(data), images=False)
    for line in validate.understood(data, found):
        output.note(line)
    harmless = [finding for finding in found.findings if finding.kind in HARMLESS]
    if harmless:
        first = f"{harmless[0].kind} in {harmless[0].file}"
        output.note(f"  {len(harmless)} small mistakes, first {first}: detrbench validate {data} lists all")


def _suite(name: str | None, model: str, data: Path, chosen: dict[str, Any]) -> dict[str, Any]:
    from detrbench.data.coco import CocoDataset
    from detrbench.data.spec import DataSpec
    from detrbench.run import work
    from detrbench.suite import own_data

    spec = DataSpec("coco", path=at_home(data).resolve(), limit=chosen.get("limit"))
    train = work.dataset_of(spec, "train")
    assert isinstance(train, CocoDataset)  # as every folder is read
    facts = own_data.OwnData.of(train)
    return own_data.document(name or own_data.name_of(data), model, facts, chosen)


def _prepare(
    suite: dict[str, Any], chosen: dict[str, Any], data: Path, results: Path, device: str, gpus: int, tensorboard: bool
) -> Any:
    """The run with its plan; raises UsageError where the detector cannot be trained."""
    from detrbench.run import execute as runs
    from detrbench.suite import own_data

    options = runs.RunOptions(
        results=results, overrides=chosen, data=data, device=device, gpus=gpus, tensorboard=tensorboard
    )
    prepared = runs.prepare(own_data.load(suite), options, output.note)
    for item in prepared.items:
        if item.state == "not_measured":
            raise UsageError(str(item.why))
    return prepared


def _written_out(suite: dict[str, Any], prepared: Any) -> dict[str, Any]:
    """The suite with what the user chose: `detrbench run` does the same with it."""
    (name,) = suite["scales"]
    settings = prepared.cells[0].settings.model_dump(exclude_unset=True)
    model = {key.removeprefix("model."): value for key, value in prepared.options.overrides.items() if "." in key}
    return {**suite, "scales": {name: {**settings, **({"model": model} if model else {})}}}


def _how(settings: Any) -> str:
    recipe, (shortest, longest) = settings.recipe, settings.eval_size
    sides, begins = settings.sides_in_training, recipe.init_from or f"backbone {recipe.init}"
    windows = ", half of them windows" if settings.crops else ""
    drops = "".join(f", a tenth of it after {epochs:g}" for epochs in recipe.lr_drops or ())
    return (
        f"begins with {begins}; {recipe.epochs} epochs, {recipe.batch_size} images a step; learning rate "
        f"{recipe.lr:g}, of the backbone {recipe.lr_backbone:g}{drops}; short "
        f"sides {min(sides)} to {max(sides)} pixels{windows}, evaluated at {shortest}/{longest}"
    )


def _result(prepared: Any, results: Path) -> CellResult:
    result = ResultsStore(results, output.note).read_cell(prepared.items[0].folder.path)
    if result is None:
        raise UsageError(f"{prepared.items[0].folder.path}: its records are gone")
    return result


def _draw(result: CellResult, spec: Any, threshold: float, device: str) -> list[Path]:
    """Detections on the first validation images, drawn beside the cell's records."""
    from detrbench.cli import predict
    from detrbench.cli.source import Source
    from detrbench.run import work

    dataset = work.dataset_of(spec, "val")
    source = Source.of(str(result.folder), None, {}, None, result.folder)
    detector = source.load(device)
    drawn = []
    for index, record in enumerate(dataset.coco_ground_truth()["images"][:DRAWN]):
        picture = dataset[index].image
        target = result.folder / "predictions" / f"{record['id']}-{Path(record['file_name']).stem}.png"
        predict.save(predict.draw(picture, predict.detect(source, detector, picture, threshold)), target)
        drawn.append(target)
    return drawn


def _report(suite: str, results: Path) -> Path:
    from detrbench import report

    page = results / suite / "report.html"
    write_atomic(page, report.render(results, [suite], "html", output.note))
    return page


def _tell(result: CellResult, drawn: list[Path], page: Path, as_json: bool) -> None:
    from detrbench.results.folder import CellFolder

    accuracy = result.records["accuracy"]["common"]
    weights = CellFolder(result.folder).weights
    if as_json:
        files = {"weights": str(weights), "report": str(page), "predictions": [str(path) for path in drawn]}
        output.print_json({"schema": SCHEMA, "cell": str(result.folder), "accuracy": accuracy, **files})
        return
    ap, ap50 = accuracy["ap"], accuracy["ap50"]
    output.say(f"AP {_points(ap)}, AP50 {_points(ap50)}, on {accuracy['num_images']} images")
    for category, value in accuracy["per_class"].items():
        output.say(f"  {category}: {'no objects' if value is None else f'{value:.1f}'}")
    output.say(f"weights      {weights}")
    output.say(f"predictions  {drawn[0].parent}")
    output.say(f"report       {page.resolve()}")


def _prediction(result: CellResult, results: Path) -> str:
    """The command that tries the trained detector on a photo."""
    where = "" if results == Path("results") else f" --results {shlex.quote(str(results))}"
    return f"detrbench predict {shlex.quote(address.of(result))} PHOTO -o boxes.png{where}"


def _points(estimate: dict[str, Any]) -> str:
    from detrbench.report import labels

    return f"{estimate['value']:.1f} {labels.interval(estimate['low'], estimate['high'], 1)}".rstrip()
