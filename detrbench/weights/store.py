"""The folder of weights: files as released, each with a note of its sha256 and where it came from. Imports no torch.

    <folder>/<family>/<name>/<file as released>    and <file>.json, its note
    <folder>/backbones/<file as released>
    <folder>/hub/<organisation>/<repository>[@<revision>]/<file as it is called there>

A hash that nobody published is noted at the first use and held from then on: neither a changed file nor another
download passes for the one that was measured. A note outlives its file.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from detrbench.errors import CheckpointError
from detrbench.files import sha256, write_atomic
from detrbench.weights import place
from detrbench.weights.catalogue import BACKBONES, HUB, Entry


@dataclass(frozen=True)
class Note:
    """What is known of a file: size in bytes, time of its last change in ns, sha256, origin and date."""

    size: int
    changed: int
    sha256: str
    origin: str
    date: str


@dataclass(frozen=True)
class Held:
    """Weights that are here, with their sha256 and where they came from."""

    path: Path
    sha256: str
    origin: str


def folder_of(entry: Entry) -> Path:
    """Where an entry's file lies; backbones lie together."""
    return place.folder() / (BACKBONES if entry.family == BACKBONES else entry.name)


def find(entry: Entry) -> Path | None:
    """The entry's file, if it is here: under its released name, else the one file of a detector's own folder."""
    folder = folder_of(entry)
    if entry.file is not None and (folder / entry.file).is_file():
        return folder / entry.file
    if entry.family in (BACKBONES, HUB):
        return None
    found = [path for path in folder.glob("[!.]*") if path.is_file() and path.suffix != ".json"]
    if len(found) > 1:
        names = ", ".join(sorted(path.name for path in found))
        raise CheckpointError(f"{folder}: expected one file of {entry.name}, got {names}", hint="remove the others")
    return found[0] if found else None


def held(entry: Entry, thoroughly: bool = False) -> Held | None:
    """The entry's weights if they are here; their hash is noted at the first use.

    Args:
        entry: which weights.
        thoroughly: read the whole file even if neither size nor time has changed.

    Raises:
        CheckpointError: not the file that was released, or not the one that was noted.
    """
    path = find(entry)
    if path is None:
        return None
    note, now = read_note(path), path.stat()
    if note and not thoroughly and (note.size, note.changed) == (now.st_size, now.st_mtime_ns):
        return Held(path, note.sha256, note.origin)
    digest = sha256(path)
    check(entry, path, digest, note)
    origin = note.origin if note else "placed here by hand"
    write_note(path, digest, origin)
    return Held(path, digest, origin)


def check(entry: Entry, path: Path, digest: str, note: Note | None) -> None:
    """Raises CheckpointError where a hash is neither the published nor the noted one."""
    if entry.sha256 and not digest.startswith(entry.sha256):
        raise CheckpointError(
            f"{path}: not {entry.name} as released: sha256 {digest[:16]}..., expected {entry.sha256[:16]}...",
            hint=f"remove it, then: detrbench weights fetch {entry.name}",
        )
    if note and digest != note.sha256:
        raise CheckpointError(
            f"{path}: not the {entry.name} of {note.date}: sha256 {digest[:16]}..., noted {note.sha256[:16]}...",
            hint=f"figures measured with it would not compare; if it is meant, remove {note_of(path)}",
        )


def note_of(path: Path) -> Path:
    """The file of a file's note."""
    return path.with_name(f"{path.name}.json")


def read_note(path: Path) -> Note | None:
    """The note of a file, which may be gone itself; None where there is none that can be read."""
    try:
        return Note(**json.loads(note_of(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_note(path: Path, digest: str, origin: str) -> None:
    """Notes a file's hash and where it came from."""
    now, today = path.stat(), datetime.date.today().isoformat()
    note = Note(now.st_size, now.st_mtime_ns, digest, origin, today)
    write_atomic(note_of(path), json.dumps(asdict(note), indent=1) + "\n")
