"""The results folder: plain files, each written whole or not at all. Imports no torch.

    results/<suite>/<scale>/suite.yaml             the suite as it was run
    results/<suite>/<scale>/cells.json             the folder that the last run had each cell in
    results/<suite>/<scale>/cells/<id>-<hash8>/    one cell: a variant with its scale, resolved;
                                                   <id>_1-<hash8> is its second seed
        cell.yaml                                  what it is
        status.json                                {"cell", "updated", "measures": {measure: {"state", "why"}}}
        <measure>.json                             envelope: key, environment, seconds, records by protocol
        accuracy-images.npz                        what each image contributed to AP
        detections.json.gz                         what was detected, in COCO's result format
        traces.npz                                 what happened inside on a few images
        log.txt  checkpoint/                       what the run said; the trained weights
        log.jsonl                                  how training went, a line every so many steps
        tensorboard/                               the same for TensorBoard, where it was asked for
        .lock-<n>                                  who is at it; see locks.py
    results/<suite>/<scale>/jobs/                  what jobs of a cluster told; see run/executors

A record goes to a temporary name and is renamed, so a crash, a full disk or two writers never leave half of one.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from detrbench import yaml12
from detrbench.errors import Damaged
from detrbench.files import is_special, sha256, share, write_atomic, write_changed
from detrbench.measures import MEASURES
from detrbench.results import locks, reading, records

SCHEMA = 1
State = Literal["done", "failed", "not_measured", "running"]
Warn = Callable[[str], None] | None  # gets one line for each file that cannot be read; such files are ignored


class CellFolder:
    """The files of one cell, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cell = path / "cell.yaml"
        self.status = path / "status.json"
        self.log = path / "log.txt"
        self.training_log = path / "log.jsonl"
        self.board = path / "tensorboard"
        self.checkpoint = path / "checkpoint"

    @property
    def weights(self) -> Path:
        """The trained weights."""
        return self.beside("training")[0]

    @property
    def images(self) -> Path:
        """What each image contributed to AP; see measure/ap_images.py."""
        return self.beside("accuracy")[0]

    @property
    def detections(self) -> Path:
        """What was detected; see measure/detections.py."""
        return self.beside("accuracy")[1]

    @property
    def traces(self) -> Path:
        """What happened inside; see pictures/scene.py."""
        return self.beside("pictures")[0]

    def record(self, measure: str) -> Path:
        """The envelope's file."""
        return self.path / f"{measure}.json"

    def has(self, measure: str, key: str) -> bool:
        """Whether the record under that key is there, with the files that it is nothing without."""
        head = self.read_head(measure)
        return head is not None and head["key"] == key and self._is_whole(measure, head)

    def _is_whole(self, measure: str, envelope: Mapping[str, Any]) -> bool:
        """Whether the files beside a record are there, as long as they were written."""
        for each in MEASURES[measure].beside:
            file, written = self.path / each.path, _written(envelope, each.path)
            if not file.is_file():
                if each.needed:
                    return False
            elif file.stat().st_size != written.get("bytes", file.stat().st_size):
                return False
        return True

    def check_beside(self, measure: str) -> None:
        """Compares the files beside a record with their digests in the record.

        Raises:
            Damaged: they differ. The file is put aside, so that the next run takes the measure again.
        """
        envelope = self.read_envelope(measure) or {}
        for each in MEASURES[measure].beside:
            file, written = self.path / each.path, _written(envelope, each.path).get("sha256")
            if written is not None and sha256(file) != written:
                aside = file.with_name(f"{file.name}.damaged")
                file.replace(aside)
                raise Damaged(
                    f"{file}: damaged: not the bytes that were written; now {aside.name}", "run again to make it anew"
                )

    def beside(self, measure: str) -> list[Path]:
        """The files that a measure leaves beside its record."""
        return [self.path / each.path for each in MEASURES[measure].beside]

    def forget(self, measure: str) -> None:
        """Removes a measure's record and what it left."""
        for path in (self.record(measure), *self.beside(measure)):
            path.unlink(missing_ok=True)

    def take_over(self, measure: str, source: CellFolder) -> None:
        """Puts the other cell's files here that belong to a measure's record; shares the space where it can.

        Raises:
            Unwritable: no space, no permission.
        """
        for theirs, ours in zip(source.beside(measure), self.beside(measure)):
            if theirs != ours and theirs.is_file():
                share(theirs, ours)

    def write_cell(self, cell: Mapping[str, Any]) -> None:
        """Writes cell.yaml, unless that is what it says."""
        write_changed(self.cell, yaml12.dump(dict(cell)))

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
            **self._describe_beside(measure),
            "environment": dict(environment),
            "records": records.to_json(dict(found)),
        }
        write_atomic(self.record(measure), json.dumps(envelope, indent=1, allow_nan=False) + "\n")

    def _describe_beside(self, measure: str) -> dict[str, Any]:
        files = {each.path: self.path / each.path for each in MEASURES[measure].beside}
        described = {
            name: {"bytes": file.stat().st_size, "sha256": sha256(file)}
            for name, file in files.items()
            if file.is_file()
        }
        return {"beside": described} if described else {}

    def read_envelope(self, measure: str, warn: Warn = None) -> dict[str, Any] | None:
        """The envelope, or None where there is none that can be read; `warn` gets one line about a broken one."""
        path = self.record(measure)
        envelope = read_json(path, warn)
        if envelope is None:
            return None
        wrong = _envelope_problem(envelope, measure)
        if wrong:
            tell(warn, f"{path}: ignored: {wrong}")
            return None
        return envelope

    def read_head(self, measure: str) -> Mapping[str, Any] | None:
        """The envelope without environment and records; its file is read once, and again only when it has changed."""
        path = self.record(measure)
        try:
            status = path.stat()
        except OSError:
            return None
        return _head(path, measure, status.st_ino, status.st_size, status.st_mtime_ns)

    def read_status(self, warn: Warn = None) -> dict[str, Any]:
        """status.json, or an empty status."""
        status = read_json(self.status, warn)
        wrong = reading.misfit(status, reading.Status) if status is not None else None
        if wrong:
            tell(warn, f"{self.status}: ignored: {wrong}")
        return {"cell": None, "updated": "", "measures": {}, **({} if wrong else status or {})}

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

    def lock(self) -> contextlib.AbstractContextManager[bool]:
        """Holds the cell against other runners, here or on other machines; False where another process holds it."""
        return locks.lock(self.path)


@functools.cache
def _head(path: Path, measure: str, inode: int, size: int, changed: int) -> Mapping[str, Any] | None:
    envelope = CellFolder(path.parent).read_envelope(measure)
    return envelope and {name: value for name, value in envelope.items() if name != "environment"} | {
        "records": list(envelope["records"])
    }


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of lines; none where there is no file. A line that is cut short ends it."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            return
        if isinstance(found, dict):
            yield found


def _written(envelope: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Length and digest of a file beside a record, as the record has them; empty where it has none."""
    described = envelope.get("beside", {}).get(name, {})
    return described if isinstance(described, dict) else {}


def read_json(path: Path, warn: Warn) -> dict[str, Any] | None:
    """A file that holds a JSON object; None where it does not, of which `warn` is told, or is not there."""
    if is_special(path):  # which might never end
        tell(warn, f"{path}: ignored: not a regular file")
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        tell(warn, f"{path}: ignored: cannot be read as JSON ({error})")
        return None
    if not isinstance(value, dict):
        tell(warn, f"{path}: ignored: expected a JSON object, got {type(value).__name__}")
        return None
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no figure")


def _envelope_problem(envelope: Mapping[str, Any], measure: str) -> str | None:
    if envelope.get("schema") != SCHEMA:
        return f"expected schema {SCHEMA}, got {envelope.get('schema')!r}"
    if not isinstance(envelope.get("key"), str):
        return "expected a key"
    if not isinstance(envelope.get("beside", {}), dict):
        return "expected a mapping of what lies beside it"
    if envelope.get("measure") != measure:
        return f"expected measure {measure!r}, got {envelope.get('measure')!r}"
    found = envelope.get("records")
    if not isinstance(found, dict) or not all(isinstance(record, dict) for record in found.values()):
        return "expected a mapping of records"
    return reading.envelope_misfit(envelope, measure)


def tell(warn: Warn, line: str) -> None:
    """Passes a warning on, where somebody listens."""
    if warn is not None:
        warn(line)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")
