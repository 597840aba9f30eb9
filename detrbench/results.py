"""The results folder: plain files, each written whole or not at all. Imports no torch.

    results/<suite>/<scale>/suite.yaml             the suite as it was run
    results/<suite>/<scale>/cells/<id>-<hash8>/    one cell: a variant with its scale, resolved
        cell.yaml                                  what it is
        status.json                                {"cell", "updated", "measures": {measure: {"state", "why"}}}
        <measure>.json                             envelope: key, environment, seconds, records by protocol
        accuracy-images.npz                        what each image contributed to AP
        traces.npz                                 what happened inside on a few images
        log.txt  checkpoint/                       what the run said; the trained weights

A record goes to a temporary name and is renamed, so a crash, a full disk or two writers never leave half of one.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from detrbench import records
from detrbench.errors import EnvironmentLacking, UsageError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
# In the order they are taken.
MEASURES = ("complexity", "training", "accuracy", "dam", "queries", "pictures", "memory", "latency")
State = Literal["done", "failed", "not_measured", "running"]


@dataclass(frozen=True)
class CellResult:
    """All that is known of one cell, read back from its folder.

    `cell` is cell.yaml, `status` is status.json, `records[measure][protocol]` a record as JSON, and
    `envelopes[measure]` what was stored around it (key, environment, seconds, created).
    """

    id: str
    suite: str
    scale: str
    folder: Path
    cell: dict[str, Any]
    status: dict[str, Any]
    records: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    envelopes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def state(self, measure: str) -> tuple[str, str | None]:
        """(state, why) of a measure; one that nobody has run yet is `not_measured`."""
        entry = self.status.get("measures", {}).get(measure, {})
        return entry.get("state", "not_measured"), entry.get("why", "not run yet") if not entry else entry.get("why")


class ResultsUnwritable(EnvironmentLacking):
    """The results folder cannot be written; nothing that a run does after this could be kept."""


class CellFolder:
    """The files of one cell, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cell = path / "cell.yaml"
        self.status = path / "status.json"
        self.log = path / "log.txt"
        self.images = path / "accuracy-images.npz"  # see measure/ap_images.py
        self.traces = path / "traces.npz"  # see pictures/scene.py
        self.checkpoint = path / "checkpoint"
        self.weights = path / "checkpoint" / "model.safetensors"

    def record(self, measure: str) -> Path:
        """The envelope's file."""
        return self.path / f"{measure}.json"

    def has(self, measure: str, key: str) -> bool:
        """Whether the record under that key is there, with the file that it is nothing without."""
        envelope = self.read_envelope(measure)
        beside = None if measure == "accuracy" else self.beside(measure)  # an AP without its images is still an AP
        return envelope is not None and envelope["key"] == key and (beside is None or beside.is_file())

    def beside(self, measure: str) -> Path | None:
        """The file that a measure leaves beside its record."""
        return {"training": self.weights, "accuracy": self.images, "pictures": self.traces}.get(measure)

    def take_over(self, measure: str, source: CellFolder) -> None:
        """Puts the other cell's file here that belongs to a measure's record; shares the space where it can.

        Raises:
            ResultsUnwritable: no space, no permission.
        """
        theirs, ours = source.beside(measure), self.beside(measure)
        if theirs is None or ours is None or not theirs.is_file() or source.path == self.path:
            return
        temporary = _temporary(ours)
        with _disk_errors(ours):
            ours.parent.mkdir(parents=True, exist_ok=True)
            try:
                try:
                    os.link(theirs, temporary)  # files are replaced, never written into, so two names may share one
                except OSError:  # another disk, or one without links
                    shutil.copyfile(theirs, temporary)
                os.replace(temporary, ours)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def write_cell(self, cell: Mapping[str, Any]) -> None:
        """Writes cell.yaml."""
        write_atomic(self.cell, yaml.safe_dump(dict(cell), sort_keys=False, allow_unicode=True))

    def write_envelope(
        self,
        measure: str,
        key: str,
        found: Mapping[str, Any],
        environment: Mapping[str, Any],
        seconds: float,
        **extra: Any,
    ) -> None:
        """Writes `<measure>.json`; `found` maps protocol name to a record of `records.py`."""
        envelope = {
            "schema": SCHEMA,
            "measure": measure,
            "key": key,
            "created": _now(),
            "seconds": round(seconds, 3),
            **extra,
            "environment": dict(environment),
            "records": records.to_json(dict(found)),
        }
        write_atomic(self.record(measure), json.dumps(envelope, indent=1, allow_nan=False) + "\n")

    def read_envelope(self, measure: str, warn: Callable[[str], None] | None = None) -> dict[str, Any] | None:
        """The envelope, or None where there is none that can be read; `warn` gets one line about a broken one."""
        path = self.record(measure)
        envelope = _read_json(path, warn)
        if envelope is None:
            return None
        wrong = _envelope_problem(envelope, measure)
        if wrong:
            _report(warn, f"{path}: ignored: {wrong}")
            return None
        return envelope

    def read_status(self, warn: Callable[[str], None] | None = None) -> dict[str, Any]:
        """status.json, or an empty status."""
        status = _read_json(self.status, warn)
        if status is not None and isinstance(status.get("measures"), dict):
            return status
        return {"cell": None, "updated": "", "measures": {}}

    def set_state(self, cell_id: str, measure: str, state: State, why: str | None = None) -> None:
        """Changes one measure's entry in status.json."""
        status = self.read_status()
        status["cell"], status["updated"] = cell_id, _now()
        status["measures"][measure] = {"state": state, "why": why}
        write_atomic(self.status, json.dumps(status, indent=1) + "\n")

    def write_log(self, text: str) -> None:
        """Appends to log.txt; a full disk is no reason to lose the run over its log."""
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as log:
            log.write(text if text.endswith("\n") else text + "\n")

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """Holds the cell against other runners; yields False where another process holds it.

        The kernel drops the lock when its process ends, however it ends, so a dead runner never blocks a cell.
        """
        import fcntl

        with _disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self.path / ".lock").open("a+", encoding="utf-8")
        with handle:
            try:
                # A POSIX lock, not flock(): data-loading children must not keep it when their parent is killed.
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise ResultsUnwritable(f"{self.path}: cannot be locked: {error.strerror}") from error
                yield False
                return
            yield True


class ResultsStore:
    """A results folder. `warn` gets one line for each file that is truncated or not ours; such files are ignored."""

    def __init__(self, root: Path | str, warn: Callable[[str], None] | None = None) -> None:
        self.root = Path(root)
        self.warn = warn

    def folder(self, suite: str, scale: str, name: str) -> CellFolder:
        """The folder of the cell called `name` (`<id>-<hash8>`)."""
        return CellFolder(self.root / suite / scale / "cells" / name)

    def write_suite(self, suite: str, scale: str, resolved: Mapping[str, Any]) -> None:
        """Keeps the resolved suite beside its cells, so that a report needs nothing else."""
        text = yaml.safe_dump(dict(resolved), sort_keys=False, allow_unicode=True)
        write_atomic(self.root / suite / scale / "suite.yaml", text)

    def read_suite(self, suite: str, scale: str) -> dict[str, Any]:
        """The resolved suite; empty where its file is missing or broken."""
        return _read_yaml(self.root / suite / scale / "suite.yaml", self.warn) or {}

    def suites(self) -> list[tuple[str, str]]:
        """Sorted (suite, scale) pairs that have cells."""
        found = {path.parent.parent for path in self.root.glob("*/*/cells/*") if path.is_dir()}
        return sorted((path.parent.name, path.name) for path in found)

    def cells(self, suite: str, scale: str) -> list[CellResult]:
        """The cells of one suite at one scale, in the suite's order.

        A variant that was run with other settings (`--set`) has a folder for each; the one touched last counts.
        """
        newest: dict[str, CellResult] = {}
        for path in sorted((self.root / suite / scale / "cells").glob("*")):
            result = self.read_cell(path) if path.is_dir() else None
            if result is None:
                continue
            known = newest.get(result.id)
            if known is None or result.status.get("updated", "") >= known.status.get("updated", ""):
                newest[result.id] = result
        return sorted(newest.values(), key=lambda result: (result.cell.get("index", 0), result.id))

    def read_cell(self, path: Path) -> CellResult | None:
        """One cell's folder, or None where it has no readable cell.yaml."""
        folder = CellFolder(path)
        cell = _read_yaml(folder.cell, self.warn)
        if cell is None or not isinstance(cell.get("id"), str):
            return None
        envelopes = {m: e for m in MEASURES if (e := folder.read_envelope(m, self.warn)) is not None}
        return CellResult(
            id=cell["id"],
            suite=str(cell.get("suite", path.parent.parent.parent.name)),
            scale=str(cell.get("scale", path.parent.parent.name)),
            folder=path,
            cell=cell,
            status=folder.read_status(self.warn),
            records={measure: envelope.pop("records") for measure, envelope in envelopes.items()},
            envelopes=envelopes,
        )

    def frame(self, suite: str | None = None, scale: str | None = None) -> pd.DataFrame:
        """One row a cell, measure and protocol: suite, scale, cell, model, measure, protocol, state, why, figures.

        Figures are the record's numbers under dotted names (`gflops`, `ap.value`, `gflops_by_part.encoder`).
        """
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for name, at in self.suites():
            if suite in (None, name) and scale in (None, at):
                for result in self.cells(name, at):
                    rows += _rows(result)
        return pd.DataFrame(rows)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all; text as UTF-8.

    Raises:
        ResultsUnwritable: no space, no permission, a read-only disk. Nothing half-written is left.
    """
    temporary = _temporary(path)
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"no space left while writing {path}"
            raise ResultsUnwritable(message, hint="free some space, or give another folder with --results") from error
        message = f"{path}: cannot be written: {error.strerror or error}"
        raise ResultsUnwritable(message, hint="give another folder with --results") from error


def _read_json(path: Path, warn: Callable[[str], None] | None) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        _report(warn, f"{path}: ignored: cannot be read as JSON ({error})")
        return None
    if not isinstance(value, dict):
        _report(warn, f"{path}: ignored: expected a JSON object, got {type(value).__name__}")
        return None
    return value


def _read_yaml(path: Path, warn: Callable[[str], None] | None) -> dict[str, Any] | None:
    from detrbench import yaml12

    if not path.exists():
        return None
    try:
        value = yaml12.load(path).value
    except UsageError as error:
        _report(warn, f"{error.message}: ignored")
        return None
    if not isinstance(value, dict):
        _report(warn, f"{path}: ignored: expected a mapping")
        return None
    return value


def _envelope_problem(envelope: Mapping[str, Any], measure: str) -> str | None:
    if envelope.get("schema") != SCHEMA:
        return f"expected schema {SCHEMA}, got {envelope.get('schema')!r}"
    if envelope.get("measure") != measure:
        return f"expected measure {measure!r}, got {envelope.get('measure')!r}"
    found = envelope.get("records")
    if not isinstance(found, dict) or not all(isinstance(record, dict) for record in found.values()):
        return "expected a mapping of records"
    return None


def _rows(result: CellResult) -> Iterator[dict[str, Any]]:
    head = {"suite": result.suite, "scale": result.scale, "cell": result.id, "model": result.cell.get("model")}
    for measure in MEASURES:
        if measure not in result.records and measure not in result.status.get("measures", {}):
            continue
        state, why = result.state(measure)
        for protocol, record in (result.records.get(measure) or {"": {}}).items():
            figures = _figures(record, "")
            yield {**head, "measure": measure, "protocol": protocol, "state": state, "why": why, **figures}


def _figures(value: Mapping[str, Any], prefix: str) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            figures |= _figures(item, f"{prefix}{name}.")
        elif isinstance(item, int | float) and not isinstance(item, bool):
            figures[f"{prefix}{name}"] = item
    return figures


def _report(warn: Callable[[str], None] | None, line: str) -> None:
    if warn is not None:
        warn(line)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")
