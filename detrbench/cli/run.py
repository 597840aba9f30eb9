"""`detrbench run`: measure the cells of suites, or with `--dry-run` say what would be done."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from detrbench.cli import output, weights
from detrbench.cli.output import Json, Results, Set
from detrbench.errors import Findings, UsageError, unknown_name
from detrbench.measures import CHOSEN
from detrbench.results.folder import SCHEMA
from detrbench.run import plan
from detrbench.run.executors import LOCAL, SLURM
from detrbench.run.time_limit import MINUTES
from detrbench.suite import loading as suites
from detrbench.weights import catalogue, store

Gpus = Annotated[
    int,
    typer.Option(
        "--gpus",
        min=1,
        metavar="N",
        help="So many GPUs train and evaluate each cell together; with --device cpu, so many processes. "
        "On several machines: --executor slurm, or torchrun ... -m detrbench run SUITE.",
    ),
]
TensorBoard = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        help="Write how training goes for TensorBoard too, into each cell: tensorboard --logdir results. "
        "Needs pip install 'detrbench\\[tensorboard]'.",
    ),
]
EXAMPLES = output.examples(
    "detrbench run quickstart",
    "detrbench run focus_table6_keep_ratio --dry-run",
    'detrbench run focus_table6_keep_ratio -k "sparse and not 0.5" --measure complexity',
    "detrbench run sparse_table1 --data ~/coco --limit 100",
    "detrbench run focus_table6_keep_ratio --data ~/coco --dry-run --train",
    "detrbench run sparse_table1 --scale smoke --set epochs=1 -s hidden_dim=128",
    "detrbench run quickstart --set seeds=3",
    "detrbench run suites/*.yaml --measure complexity --jobs 4",
    "detrbench run sparse_table1 --data ~/coco --train --gpus 8",
    "torchrun --nnodes 2 --nproc-per-node 8 -m detrbench run sparse_table1 --data ~/coco --train",
    "detrbench run table6_keep_ratio --data ~/coco --executor slurm --slurm partition=gpu,time=8:00:00,gpus_per_node=1",
)


def command(
    suite: Annotated[list[str], typer.Argument(metavar="SUITE...", help="Suites, by name or YAML file.")],
    expression: Annotated[
        str | None, typer.Option("-k", metavar="EXPR", help='Only cells whose id matches: "sparse and not 0.1".')
    ] = None,
    set_: Set = None,
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The scale: paper, mini, smoke. Default: paper if --data is given and the suite has it, "
            "else the suite's default_scale, else its first.",
        ),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(metavar="M,...", help=f"Only these: {', '.join(CHOSEN)}."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A data set: COCO, Roboflow or YOLO folders.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Use only N images of each split.")] = None,
    results_folder: Results = Path("results"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            metavar="N",
            help="Count, train and evaluate in N processes, each on a GPU of its own. Memory and latency are measured "
            "one at a time. Slurm: at most N jobs at once.",
        ),
    ] = None,
    gpus: Gpus = 1,
    executor: Annotated[
        str,
        typer.Option(metavar="NAME", help="Who does the work: local, slurm, or one that was installed as a plug-in."),
    ] = LOCAL,
    slurm: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE,...", help="sbatch's options: partition=gpu,time=8:00:00,gpus_per_node=1."),
    ] = None,
    skip_batches: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Steps that a training which diverged there is to pass over."),
    ] = None,
    tensorboard: TensorBoard = False,
    train: Annotated[
        bool, typer.Option("--train", help="At the paper's scale, train rows that have no weights here. Takes days.")
    ] = False,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch",
            min=1,
            metavar="N",
            help="Evaluate up to N images of one size together. Nothing is padded, so AP is that of one at a time.",
        ),
    ] = 1,
    weights_folder: weights.Folder = None,
    minutes: Annotated[
        float,
        typer.Option(
            "--time-limit",
            min=0,
            metavar="MINUTES",
            help="A cell whose memory or latency takes longer is left out. The others go on. 0: no limit.",
        ),
    ] = MINUTES,
    timing_processes: Annotated[
        int | None,
        typer.Option(
            "--timing-processes",
            min=1,
            metavar="N",
            help="Time in N processes in turn, in place of the protocol's three at the papers' size. Memory lies "
            "elsewhere in each, so intervals of one process are too narrow.",
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again, even what is done.")] = False,
    verify_data: Annotated[
        bool,
        typer.Option(
            "--verify-data",
            help="Hash every image to detect changed data, instead of trusting sizes and times.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan without running or writing anything.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run suites: train where needed, measure every cell, keep the results.

    What is done already is skipped, so running the same command again goes on where it was interrupted.
    At the papers' own scale, rows are measured with their official weights, where `detrbench weights` has fetched them;
    what takes days to train is trained only with --train.
    Complexity needs neither data nor weights; it is counted at the paper's scale whatever the scale.
    """
    if executor == LOCAL and (jobs or 1) > 1 and gpus > 1:
        raise UsageError("--jobs and --gpus: expected one of them")
    if slurm and executor != SLURM:
        raise UsageError("--slurm goes with --executor slurm")
    loaded = [suites.load(name) for name in suite]
    measures = _measures(measure)
    overrides = output.settings(set_)

    from detrbench.run import execute as runs
    from detrbench.run import executors

    settings = _settings_of_slurm(slurm)
    options = runs.RunOptions(
        results=results_folder,
        scale=scale,
        expression=expression,
        overrides=overrides,
        measures=measures,
        data=data,
        limit=limit,
        fresh=fresh,
        verify_data=verify_data,
        train=train,
        batch_size=batch_size,
        device=_device(device, executor, settings),
        time_limit=60 * minutes,
        processes=timing_processes,
        gpus=processes(gpus, executor),
        skip=_steps(skip_batches),
        tensorboard=tensorboard,
    )
    if helps_another(options.device, dry_run):
        return
    prepared = [runs.prepare(one, options, output.note) for one in loaded]
    if dry_run:
        _print_plan(prepared, as_json)
        return
    with executors.opened(executor, options, jobs, settings) as opened:
        outcomes = execute(prepared, opened, as_json)
    _finish(prepared, outcomes, results_folder, as_json)


def _measures(given: str | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    for name in names:
        if name not in CHOSEN:
            raise unknown_name("measure", name, CHOSEN)
    if not names:
        raise UsageError("--measure: expected names, got none", hint=f"known: {', '.join(CHOSEN)}")
    return names


def _steps(given: str | None) -> tuple[int, ...]:
    numbers = [number.strip() for number in (given or "").split(",") if number.strip()]
    if not all(number.isdecimal() and int(number) for number in numbers):
        raise UsageError(
            f"--skip-batches {given}: expected numbers of steps, counted from 1", hint="--skip-batches 1204"
        )
    return tuple(map(int, numbers))


def _settings_of_slurm(given: list[str] | None) -> dict[str, str]:
    from detrbench.run.executors import slurm

    return slurm.parse(given or [])


def _device(asked: str, executor: str, settings: dict[str, str]) -> str:
    from detrbench.environment import pick_device
    from detrbench.run.executors import slurm

    return slurm.pick_device(asked, settings) if executor == SLURM else pick_device(asked)


def processes(gpus: int, executor: str = LOCAL) -> int:
    """How many train and evaluate a cell together: as many as torchrun has started, or are to be started."""
    from detrbench.run import team

    started = team.place_in_torchrun().size
    if started > 1 and (gpus > 1 or executor != LOCAL):
        raise UsageError("torchrun has started the processes already", hint="leave --gpus and --executor out")
    return max(started, gpus)


def helps_another(device: str, dry_run: bool) -> bool:
    """Whether this is another process than torchrun's first; it comes back when it has helped that one."""
    from detrbench.run import team

    if team.place_in_torchrun().rank == 0:
        return False
    if not dry_run:
        with team.joined(device):
            pass
    return True


def execute(prepared: list[Any], executor: Any, as_json: bool) -> list[Any]:
    """Does prepared runs while progress is shown; returns the outcomes."""
    from detrbench.cli import progress
    from detrbench.run import execute as runs

    listener = progress.listener(output.console(to_stderr=as_json), executor.jobs)
    for line in (line for one in prepared for line in headline(one).splitlines()):
        output.note(line)
    try:
        return runs.execute_all(prepared, listener, executor)
    except KeyboardInterrupt:
        if executor.leaves:
            output.note(executor.leaves)
        raise
    finally:
        listener.close()


def headline(prepared: Any) -> str:
    """How much is to be done, and about how long it takes."""
    counts = Counter(item.state for item in prepared.items)
    known = [item.seconds for item in prepared.items if item.state == "todo" and item.seconds is not None]
    about = f", about {output.duration(sum(known))}" if known else ""
    unasked = [item.seconds for item in prepared.items if item.state == "not_measured" and item.measure == "training"]
    days = f"; {len(unasked)} trainings not asked for" if unasked else ""
    if any(unasked):
        days += f", about {output.duration(sum(seconds or 0.0 for seconds in unasked))}"
    reused = f"{counts['reused']} from equal cells; " if counts["reused"] else ""
    return (
        f"{prepared.loaded.suite.name} at scale {prepared.scale} on {prepared.options.device}: "
        f"{counts['todo']} to do{_trainings(prepared)}{about}; {counts['done']} done; {reused}"
        f"{counts['not_measured']} cannot be measured{days}{_without_data(prepared)}"
    )


def _trainings(prepared: Any) -> str:
    """How many of the steps are trainings, where a scale asks for several of a row."""
    trained = [i.cell for i in prepared.items if i.measure == "training" and i.state == "todo"]
    several = any(cell.settings.seeds > 1 for cell in trained)
    return f", {len(trained)} of them trainings" if several else ""


def _without_data(prepared: Any) -> str:
    """What a run without data leaves out, and how it would not."""
    left = dict.fromkeys(item.measure for item in prepared.items if item.why in (plan.NO_DATA, plan.UNTRAINED))
    if not left:
        return ""
    generated = [name for name, scale in prepared.loaded.suite.scales.items() if scale.data != "coco"]
    here = "".join(f", or --scale {name} (images made here)" for name in generated[-1:])
    return f"\nno data, so no {', '.join(left)}: give COCO with --data DIR{here}"


def _print_plan(prepared: list[Any], as_json: bool) -> None:
    if as_json:
        output.print_json({"schema": SCHEMA, "dry_run": True, "suites": [_plan_json(one) for one in prepared]})
        return
    console = output.console()
    for one in prepared:
        output.say(*headline(one).splitlines(), "")
        rows = [
            (
                i.cell.id,
                i.measure,
                i.state.replace("_", " "),
                i.why or "",
                output.duration(i.seconds) if i.seconds else "",
                i.official or "",
            )
            for i in one.items
            if i.why not in (plan.NO_DATA, plan.UNTRAINED)  # the headline says it once
        ]
        console.print(output.table(["cell", "measure", "state", "why", ">about", "official weights"], rows))
        missing = _to_fetch(one)
        if missing:
            output.say(f"official weights of these rows: detrbench weights fetch {' '.join(missing)}")


def _to_fetch(prepared: Any) -> list[str]:
    """Released weights that rows would be measured with and that are not here, where they can be fetched."""
    named = dict.fromkeys(i.cell.official for i in prepared.items if i.cell.official and i.state == "not_measured")
    entries = [catalogue.get(name) for name in named]
    return [entry.name for entry in entries if entry.url and store.find(entry) is None]


def _plan_json(prepared: Any) -> dict[str, Any]:
    items = [
        {
            "cell": i.cell.id,
            "measure": i.measure,
            "state": i.state,
            "why": i.why,
            "seconds": i.seconds,
            "key": i.key,
            "official": i.official,
        }
        for i in prepared.items
    ]
    return {"suite": prepared.loaded.suite.name, "scale": prepared.scale, "items": items}


def _finish(prepared: list[Any], outcomes: list[Any], folder: Path, as_json: bool) -> None:
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if as_json:
        output.print_json(
            {
                "schema": SCHEMA,
                "results": str(folder),
                "suites": [{"suite": one.loaded.suite.name, "scale": one.scale} for one in prepared],
                "outcomes": [_outcome_json(outcome) for outcome in outcomes],
                "failed": len(failed),
            }
        )
    counts = Counter(outcome.state for outcome in outcomes)
    summary = ", ".join(f"{n} {state.replace('_', ' ')}" for state, n in sorted(counts.items()))
    output.note(f"{summary}; results in {folder}")
    for why, group in _reasons(outcomes).items():
        output.note(f"not measured: {why}: {', '.join(group)}")
    refuse_failed(outcomes)
    output.note(f"next: detrbench report {folder}")


def refuse_failed(outcomes: list[Any]) -> None:
    """Raises Findings where a step failed or was left out."""
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if failed:
        first = failed[0]
        raise Findings(
            f"{len(failed)} of {len(outcomes)} failed, first {first.item.cell.id} {first.item.measure}: {first.why}",
            hint=f"traceback in {first.item.folder.log}; run the same command again to retry",
        )
    _refuse_to_hide(outcomes)


def _refuse_to_hide(outcomes: list[Any]) -> None:
    """A selection of which a part was left out is not done, however well the rest went."""
    from detrbench import models
    from detrbench.run.plan import UNKNOWN

    unknown = {outcome.item.cell.model for outcome in outcomes if outcome.why == UNKNOWN}
    if unknown:
        one = unknown_name("model", sorted(unknown)[0], models.names(), "detrbench list models")
        raise Findings(one.message, one.hint)
    given_up = [outcome for outcome in outcomes if outcome.given_up]
    if given_up:
        first = given_up[0]
        raise Findings(
            f"{len(given_up)} of {len(outcomes)} not measured, first {first.item.cell.id} {first.item.measure}: "
            f"{first.why}",
            hint="running again takes them again; --time-limit MINUTES gives a timed cell more",
        )
    busy = dict.fromkeys(outcome.item.cell.id for outcome in outcomes if outcome.state == "busy")
    if busy:
        raise Findings(
            f"{len(busy)} cells are locked by another run: {', '.join(busy)}", hint="run again when it has finished"
        )


def _reasons(outcomes: list[Any]) -> dict[str, list[str]]:
    reasons: dict[str, dict[str, None]] = {}
    for outcome in outcomes:
        if outcome.state in ("not_measured", "busy"):
            reasons.setdefault(outcome.why, {})[outcome.item.cell.id] = None
    return {why: list(cells) for why, cells in reasons.items()}


def _outcome_json(outcome: Any) -> dict[str, Any]:
    item = outcome.item
    return {
        "suite": item.cell.suite,
        "scale": item.cell.scale,
        "cell": item.cell.id,
        "measure": item.measure,
        "state": outcome.state,
        "why": outcome.why,
        "seconds": round(outcome.seconds, 3),
        "folder": str(item.folder.path),
    }
