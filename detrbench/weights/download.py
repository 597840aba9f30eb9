"""One file over HTTP: resumed where it was cut, whole or not at all, checked before it is used. Imports no torch."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detrbench.errors import EnvironmentLacking, FetchError
from detrbench.files import Unwritable, move, sha256, unwritable, write_atomic

Tell = Callable[[int, int | None], None]  # bytes that are here, bytes in all
ATTEMPTS = 3  # in a row that bring nothing new
PAUSE = 0.5  # seconds before the next one, doubled each time
SECONDS = 30.0  # without a byte
BLOCK = 1 << 18  # bytes
AGAIN = (408, 429, 500, 502, 503, 504)  # answers of a server that may be better in a moment


@dataclass(frozen=True)
class Source:
    """Where a file comes from.

    Args:
        url: its address.
        headers: sent to that address, and not to where it redirects.
        size: in bytes, where it is known.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None


class _Cut(Exception):
    """The connection ended early."""


def download(source: Source, target: Path, check: Callable[[Path, str], None], tell: Tell) -> str:
    """Fetches a file; `target` is there whole and checked, or not at all.

    What arrived of it stays in `.fetching/` beside the target, and the next call goes on from there. Another process
    that fetches the same file is waited for.

    Args:
        source: where from.
        target: where to.
        check: gets the whole file and its sha256 before it becomes the target; what it raises leaves nothing behind.
        tell: is told how much is here.

    Returns:
        its sha256.

    Raises:
        FetchError: the server, the network, or a file that is not the one expected.
        EnvironmentLacking: no space, no permission.
    """
    part = target.parent / ".fetching" / target.name
    with _disk_errors(target), _alone(part):
        if target.is_file():  # while this process waited
            return sha256(target)
        _complete(source, part, tell)
        digest = sha256(part)
        try:
            check(part, digest)
        except Exception:
            _forget(part)
            raise
        move(part, target)
        _forget(part)
    return digest


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Waits until no other process is at this file; the system frees the lock of one that is killed."""
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.with_name(f"{part.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except (Unwritable, OSError) as error:
        told = error if isinstance(error, Unwritable) else unwritable(target, error)
        raise EnvironmentLacking(told.message, hint="give another folder with --weights, or free some space") from error


def _complete(source: Source, part: Path, tell: Tell) -> None:
    """Goes on until the part is the whole file."""
    failures, most = 0, _size(part)
    while True:
        try:
            _go_on(source, part, tell)
            return
        except _Cut as cut:
            failures = 0 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures >= ATTEMPTS:
                here = f", {_size(part)} bytes are here" if _size(part) else ""
                hint = "check the connection; the same command resumes the download"
                raise FetchError(f"{source.url}: {cut}{here}", hint=hint) from cut
            time.sleep(PAUSE * 2**failures)


def _go_on(source: Source, part: Path, tell: Tell) -> None:
    """One request for what is missing; raises _Cut where it ends early."""
    start, known = _size(part), _read_state(part)
    if known.get("url") != source.url or not known.get("version"):
        start = 0  # what is here may be of another file
    request = urllib.request.Request(source.url, headers={"Accept-Encoding": "identity"})
    for name, value in source.headers.items():
        request.add_unredirected_header(name, value)
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", known["version"])
    try:
        answer = urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send, or it is another file
            there = error.headers.get("Content-Range", "").rpartition("/")[2]
            if there == str(start) and known.get("total") in (None, start):
                return
            _forget(part)
            raise _Cut(f"the server has {there or 'no'} bytes, not the same as before") from error
        if error.code in AGAIN:
            raise _Cut(f"the server answers {error.code} {error.reason}") from error
        hint = "the link may be dead: see detrbench weights show, fetch it by hand, then detrbench weights import"
        raise FetchError(f"{source.url}: the server answers {error.code} {error.reason}", hint=hint) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(f"no connection: {_reason(error)}") from error
    with answer:
        if answer.status != 206:  # the file from its beginning: it has changed, or this server cannot go on
            start = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            _forget(part)
            raise _Cut("the server sent a different range than was asked for")
        total = _total(answer, start)
        if source.size is not None and total is not None and total != source.size:
            _forget(part)
            raise FetchError(f"{source.url}: expected {source.size} bytes, the server has {total}", hint=_ELSEWHERE)
        _write_state(part, source.url, answer, total)
        _append(answer, part, start, total, tell)
    here = _size(part)
    expected = total if total is not None else source.size
    if expected is not None and here > expected:
        _forget(part)
        raise FetchError(f"{source.url}: expected {expected} bytes, got {here}", hint=_ELSEWHERE)
    if expected is not None and here < expected:
        raise _Cut(f"the connection was cut at {here} of {expected} bytes")


_ELSEWHERE = "this is not the released file; see detrbench weights show"


def _append(answer: Any, part: Path, start: int, total: int | None, tell: Tell) -> None:
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        here = start
        tell(here, total)
        while True:
            try:
                block = answer.read(BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _Cut(f"the connection was cut at {here} bytes: {_reason(error)}") from error
            if not block:
                return
            file.write(block)
            here += len(block)
            tell(here, total)


def _total(answer: Any, start: int) -> int | None:
    """Bytes of the whole file, where the server says so."""
    ranged = answer.headers.get("Content-Range", "").rpartition("/")[2]
    if answer.status == 206 and ranged.isdigit():
        return int(ranged)
    length = answer.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _read_state(part: Path) -> dict[str, Any]:
    try:
        state = json.loads(part.with_name(f"{part.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _write_state(part: Path, url: str, answer: Any, total: int | None) -> None:
    """Which version of the file is arriving: what comes later must be of the same one."""
    tag = answer.headers.get("ETag", "")
    version = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
    write_atomic(part.with_name(f"{part.name}.json"), json.dumps({"url": url, "version": version, "total": total}))


def _forget(part: Path) -> None:
    """Removes what arrived. The lock's file stays: another process may be waiting for it."""
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.json").unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None)
    return str(inner or error) or type(error).__name__
