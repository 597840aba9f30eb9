"""What a folder of images holds, as one digest: equal bytes give equal digests, wherever and whenever they were copied.

Every file is read once. What was found is kept in the cache folder under the file's size and time of change, so that
120,000 images are compared in seconds the next time; `forget` has them read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from detrbench.files import Unwritable, cache_folder, sha256, write_atomic

_THREADS = 8
_SAID = 2000  # files: fewer are read before anybody could wonder

_Known = dict[str, list[object]]  # name -> size, nanoseconds of the last change, digest


def digest(folder: Path, names: Iterable[str]) -> str:
    """sha256 of the names of files in a folder and of all that is in them.

    Args:
        folder: that the names are relative to.
        names: of the files; one that is missing counts as that, and is an error where it is read as an image.
    """
    names = list(names)
    memo = _memo(folder)
    known = _read(memo)
    found = {name: _stamp(folder / name) for name in names}
    changed = [name for name, stamp in found.items() if stamp is not None and known.get(name, [])[:2] != stamp]
    known[""] = [str(folder.resolve())]  # whose files these are
    for name, content in zip(changed, _hashes([folder / name for name in changed])):
        known[name] = [*(found[name] or []), content]
    if changed:
        with contextlib.suppress(Unwritable):  # read again next time
            write_atomic(memo, json.dumps(known))
    whole = hashlib.sha256()
    for name in names:
        held = known[name][2] if found[name] is not None else "missing"
        whole.update(f"{name}\0{held}\n".encode())
    return whole.hexdigest()


def forget(folder: Path) -> None:
    """Has the files below a folder read again, whatever their size and time of change."""
    kept = cache_folder() / "contents"
    for memo in kept.glob("*.json") if kept.is_dir() else ():
        place = _read(memo).get("", [""])[0]
        if Path(str(place)).is_relative_to(folder.resolve()):
            memo.unlink(missing_ok=True)


def _stamp(file: Path) -> list[object] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns] if stat.S_ISREG(status.st_mode) else None


def _hashes(files: list[Path]) -> Iterator[str]:
    if not files:
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        found: Iterable[str] = pool.map(_hash, files)
        if len(files) >= _SAID:
            from rich.console import Console
            from rich.progress import track

            title = "reading the images once"
            found = track(found, title, total=len(files), console=Console(stderr=True), transient=True)
        yield from found


def _hash(file: Path) -> str:
    try:
        return sha256(file)
    except OSError as error:  # a folder, or no permission: told where it is read as an image
        return str(error.strerror)


def _memo(folder: Path) -> Path:
    place = str(folder.resolve())
    return cache_folder() / "contents" / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"


def _read(memo: Path) -> _Known:
    try:
        known = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
