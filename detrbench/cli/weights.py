"""`detrbench weights`: the released weights of the detectors, and how they come to this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from detrbench.cli import output
from detrbench.cli.output import Json
from detrbench.errors import CheckpointError, Findings, unknown_name
from detrbench.weights import catalogue, fetching, place, store

if TYPE_CHECKING:
    from detrbench.weights.catalogue import Entry

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


def _use(path: Path | None) -> Path | None:
    place.use(path)
    return path


Folder = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="DIR",
        callback=_use,
        help="The folder of released weights. Default: weights/ in DETRBENCH_CACHE, else in ~/.cache/detrbench.",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A name from `detrbench weights list`.")]


@app.command("list", epilog=output.examples("detrbench weights list", "detrbench weights list sparse_detr backbones"))
def list_weights(
    families: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FAMILY]...", help="Only these families: sparse_detr, focus_detr, ..."),
    ] = None,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """List the released weights: detector, published AP, and whether they are here."""
    found = [entry for entry in catalogue.entries().values() if not families or entry.family in families]
    for name in families or ():
        if name not in {entry.family for entry in found}:
            raise unknown_name("family of weights", name, {e.family for e in catalogue.entries().values()})
    if as_json:
        output.print_json({"weights": [_describe(entry) for entry in found], "left_out": _left_out()})
        return
    rows = [(e.name, e.model, _options(e), _ap(e), state(e)) for e in found]
    output.console().print(output.table(["name", "model", "options", ">AP", "state"], rows))
    for one in () if families else catalogue.left_out():
        output.say(f"left out: {one.what} ({one.code}): {one.why}")


@app.command(epilog=output.examples("detrbench weights show sparse_detr/r50_rho0.3"))
def show(name: Name, folder: Folder = None, as_json: Json = False) -> None:
    """Show everything about released weights: detector with options, published AP, source, licence, where they lie."""
    described = _describe(catalogue.get(name))
    if as_json:
        output.print_json(described)
    else:
        output.print_yaml(described)


@app.command(
    epilog=output.examples(
        "detrbench weights fetch sparse_detr/r50_rho0.1 sparse_detr/r50_rho0.3",
        "detrbench weights fetch transformers/deformable_detr_r50",
        "detrbench weights fetch hf:SenseTime/deformable-detr",
    )
)
def fetch(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Names, or hf:ORGANISATION/REPOSITORY[@REVISION][/FILE].")
    ],
    folder: Folder = None,
) -> None:
    """Fetch weights; what is here already is left alone, and what was cut goes on where it was."""
    for entry in [fetching.entry_of(name) for name in names]:
        with _bar(entry.name) as tell:
            held = fetching.fetch(entry, tell, _fits)
        output.say(f"{entry.name}: {held.path}")


@app.command(
    "import",
    epilog=output.examples(
        "detrbench weights import Downloads/checkpoint0011_4scale.pth --as dino/r50_4scale_12ep",
        "detrbench weights import r50_s3ex3_50.4.pth",
    ),
)
def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The released file. It is copied unchanged.")],
    name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="The weights that it holds. Default: recognised by content."),
    ] = None,
    folder: Folder = None,
) -> None:
    """Take a file that was fetched by hand; whether it is what it is said to be is told by the shapes in it."""
    from detrbench.weights import identify

    entry = catalogue.get(name) if name else identify.recognise(file)
    output.say(f"{entry.name}: {fetching.import_file(file, entry, _fits).path}")


@app.command(epilog=output.examples("detrbench weights verify"))
def verify(folder: Folder = None) -> None:
    """Read all weights that are here and compare their hashes with those published, or noted when they came."""
    wrong = 0
    for entry in catalogue.entries().values():
        try:
            held = store.held(entry, thoroughly=True)
        except CheckpointError as error:
            wrong += 1
            output.say(f"{entry.name}: {error.message}")
            continue
        if held:
            output.say(f"{entry.name}: ok, sha256 {held.sha256}")
    if wrong:
        raise Findings(f"{wrong} file{'s' if wrong > 1 else ''} changed", hint="remove them and fetch them again")


def _fits(entry: Entry, path: Path) -> None:
    """Looks into a file. What reads it imports torch, which takes seconds; whole published hashes need no look."""
    from detrbench.weights import identify

    identify.check(entry, path)


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on stderr while a file comes, where somebody watches."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with output.bar(*columns) as progress:
        task = progress.add_task(name, total=None)
        yield lambda here, total: progress.update(task, completed=here, total=total)


def _describe(entry: Entry) -> dict[str, Any]:
    described = {key: value for key, value in asdict(entry).items() if value not in (None, {})}
    path = store.find(entry)
    note = store.read_note(path) if path else None
    return {**described, "state": state(entry), "file": str(path) if path else None, **(asdict(note) if note else {})}


def _left_out() -> list[dict[str, Any]]:
    return [one.model_dump() for one in catalogue.left_out()]


def state(entry: Entry) -> str:
    """Whether weights are here, and if not, who can fetch them."""
    if store.find(entry):
        return "here"
    return "to fetch" if entry.url else "by hand"


def _options(entry: Entry) -> str:
    return ", ".join(f"{key}={value}" for key, value in entry.options.items())


def _ap(entry: Entry) -> str:
    return ", ".join(str(value) for value in entry.ap.values())
