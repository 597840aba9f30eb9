"""Files that are written whole or not at all, and the hash that identifies their content. Imports no torch."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from detrbench.errors import EnvironmentLacking


def at_home(path: Path | str) -> Path:
    """The path with `~` for the user's own folder; one of a user that is not known stays as it is."""
    return Path(os.path.expanduser(path))


def cache_folder() -> Path:
    """What can be made anew and is kept for all projects: DETRBENCH_CACHE, else `detrbench` in the user's caches."""
    named = os.environ.get("DETRBENCH_CACHE")
    if named:
        return at_home(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detrbench"


class Unwritable(EnvironmentLacking):
    """A file cannot be written: nothing that comes after this could be kept."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name to write to; when the block ends well, that file becomes `path`, on the disk for good.

    A link stays a link: what it leads to is replaced. What is no file (a device, a pipe) is written into.

    Raises:
        Unwritable: no space, no permission, a read-only disk. Nothing half-written is left.
    """
    if is_special(path):
        with _disk_errors(path), tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / "content"
            yield temporary
            with temporary.open("rb") as content, path.open("wb") as target:
                shutil.copyfileobj(content, target)
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            move(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def move(source: Path, target: Path) -> None:
    """Gives a whole file its name, on the disk for good: through a power cut it is there with all of its content."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(source, target)
    _sync_folder(target.parent)


def is_special(path: Path) -> bool:
    """Whether that is a device, a pipe or a socket: writing would replace it, and reading might never end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _sync_folder(folder: Path) -> None:
    """Keeps a new name through a power cut; some file systems cannot, and need not be told."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all; text as UTF-8. Raises Unwritable."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_changed(path: Path, text: str) -> None:
    """The same, unless the file holds that text already. Raises Unwritable."""
    if not (path.is_file() and path.read_bytes() == text.encode()):
        write_atomic(path, text)


def share(source: Path, target: Path) -> None:
    """Gives a file a second name, or where the disk cannot, a copy. Raises Unwritable."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)  # files are replaced, never written into, so two names may share one
        except OSError:  # another disk, or one without links
            shutil.copyfile(source, temporary)


def sha256(path: Path, also: str = "") -> str:
    """sha256 of a file's content, and of the text that comes after it, in hex."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    digest.update(also.encode())
    return digest.hexdigest()


def sha256_once(path: Path) -> str:
    """The same, read again only where size or time of change are others: a plan asks for one file once a row."""
    status = path.stat()
    return _sha256_of(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _sha256_of(path: Path, size: int, changed: int) -> str:
    return sha256(path)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> Unwritable:
    """The error that says why a file cannot be written and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some disk space, or give another folder with --results"
        return Unwritable(f"no space left while writing {path}", hint=hint)
    message = f"{path}: cannot be written: {error.strerror or error}"
    return Unwritable(message, hint="give another folder with --results")
