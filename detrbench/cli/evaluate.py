"""`detrbench evaluate`: AP of any detector's predictions, after a look at what is usually wrong with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from detrbench.cli import compare, output
from detrbench.cli.output import Json, Results
from detrbench.errors import Findings, UsageError
from detrbench.files import at_home

EXAMPLES = output.examples(
    "detrbench evaluate predictions.json --data ~/coco",
    "detrbench evaluate mine.json --data ~/coco --against other.json",
    "detrbench evaluate mine.bbox.json.gz --data ~/coco --name mine --against quickstart:deformable",
)


def command(
    predictions: Annotated[
        Path, typer.Argument(metavar="PRED.json", help="Detections in COCO's result format, plain or gzipped.")
    ],
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="The COCO folder (its val split is used), or an annotation file.")
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name in the results. Default: the file's name.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="Compare with other predictions, or with a cell of the results (SUITE:ID)."),
    ] = None,
    results_folder: Results = Path("results"),
    judged: Annotated[
        bool, typer.Option("--pycocotools", help="Score with pycocotools too (slow), and fail if any figure differs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score predictions of any detector: the 12 figures of COCO, AP by category, intervals over images.

    They become a cell of the suite `external`, which `compare`, `check` and `report` show as any other.
    """
    from detrbench.compare import cells as comparing
    from detrbench.results import address
    from detrbench.results.store import ResultsStore
    from detrbench.run import predictions as scoring

    predictions, data = at_home(predictions), at_home(data)
    if not os.path.exists(data):  # which answers to any text
        raise UsageError(f"{data}: no such folder or file", hint="--data takes a folder in COCO layout")
    dataset, store = scoring.open_truth(data), ResultsStore(results_folder, output.note)
    other = at_home(against) if against is not None and os.path.isfile(at_home(against)) else None
    if against is not None and other is None:
        address.several(against, results_folder)  # refused before anything is scored
    names = [name or scoring.default_name(predictions)]
    if other is not None:
        names.append(scoring.default_name(other))
        if names[0] == names[1]:
            raise UsageError(f"both would be called {names[0]!r}", hint="give --name NAME")
    files = [predictions] if other is None else [predictions, other]
    done = [scoring.evaluate(file, data, dataset, each, store) for file, each in zip(files, names)]
    for one in done:
        for suspicion in one.suspicions:
            output.note(f"{one.name}: {suspicion}")
        if judged:
            _judge(one, dataset)
    if as_json:
        output.print_json(_as_json(done[0]))
        return
    for one in done:
        _tell(one)
    other_place = done[1].place if other is not None else against
    if other_place is not None:
        output.say()
        compare.tell(comparing.compare(other_place, done[0].place, results_folder, output.note))
    output.note(f"next: detrbench report {results_folder}")


def _judge(one: Any, dataset: Any) -> None:
    from detrbench.measure import protocols, scoring

    theirs = scoring.points(scoring.by_pycocotools(one.scored, dataset, protocols.get("accuracy")).stats)
    other = {name: value for name, value in theirs.items() if value != one.record.stats[name]}
    if other:
        raise Findings(f"{one.name}: pycocotools gives other figures: {other}", hint="please report the two files")
    output.note(f"{one.name}: pycocotools gives the same 12 figures")


def _tell(one: Any) -> None:
    """The figures, and AP by category from the worst."""
    from detrbench.report import labels

    record = one.record
    ap = f"{_shown(record.stats['AP'])} {labels.interval(record.ap.low, record.ap.high, 1)}".rstrip()
    output.say(f"{one.name}: AP {ap} on {record.num_images} images; {record.convention}")
    console = output.console()
    console.print(output.table([f">{stat}" for stat in record.stats], [[_shown(v) for v in record.stats.values()]]))
    by_category = sorted(((v, k) for k, v in record.per_class.items() if v is not None))
    shown = ", ".join(f"{category} {_shown(value)}" for value, category in by_category[:5])
    output.say(f"lowest by category: {shown}", f"kept in {one.folder.path}")


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}"


def _as_json(one: Any) -> dict[str, Any]:
    from detrbench.results.records import to_json

    return {
        "suite": "external",
        "scale": one.scale,
        "cell": one.name,
        "folder": str(one.folder.path),
        "suspicions": [to_json(suspicion) for suspicion in one.suspicions],
        "record": to_json(one.record),
    }
