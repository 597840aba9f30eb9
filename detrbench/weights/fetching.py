"""Released weights come here: from the web, from the Hugging Face hub, from a file. Imports no torch by itself."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detrbench.errors import CheckpointError, FetchError, UsageError
from detrbench.files import sha256, share
from detrbench.weights import named, store
from detrbench.weights.catalogue import HUB, Entry
from detrbench.weights.download import Source, Tell, download

Check = Callable[[Entry, Path], None]  # raises CheckpointError where a file is not these weights


def entry_of(name: str) -> Entry:
    """What `fetch` is asked for; of a repository of the hub that is named without a file, what is here, else the hub.

    Raises:
        UsageError: no weights of that name.
        FetchError: no answer of the hub.
    """
    entry = named.entry_of(name)
    if entry.family != HUB or entry.url is not None:
        return entry
    here = next((each for each in named.files_of(entry) if store.find(each)), None)
    return here or named.with_file(entry, _usual_file(name))


def fetch(entry: Entry, tell: Tell, fits: Check) -> store.Held:
    """The weights, fetched where they are not here.

    Args:
        entry: which.
        tell: is told how many bytes have come.
        fits: looks into a file whose whole hash is not published.

    Raises:
        FetchError: the network, the server, or a file that is not the one released.
        CheckpointError: a file that is not these weights.
        UsageError: only a person can fetch them; the message says where.
        EnvironmentLacking: no space, no permission.
    """
    here = store.held(entry)
    if here is not None:
        return here
    if entry.url is None:
        raise UsageError(
            f"{entry.name}: it must be downloaded by hand from {entry.by_hand}",
            hint=f"then: detrbench weights import FILE --as {entry.name}",
        )
    source, digest = _source(entry)
    if digest and entry.sha256 is None:
        entry = dataclasses.replace(entry, sha256=digest)
    target, origin = store.folder_of(entry) / str(entry.file), str(entry.url)

    def check(part: Path, found: str) -> None:
        store.check(entry, part, found, store.read_note(target))
        if entry.model and len(entry.sha256 or "") < 64:
            fits(entry, part)

    found = download(source, target, check, tell)
    store.write_note(target, found, origin)
    return store.Held(target, found, origin)


def import_file(path: Path, entry: Entry, fits: Check) -> store.Held:
    """Takes a file that is on this machine as those weights; it shares the space where the disk can.

    Raises:
        CheckpointError: no such file, not these weights, or not those that were noted.
        EnvironmentLacking: no space, no permission.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    released = entry.file if entry.file and Path(entry.file).suffix == path.suffix else None
    target = store.folder_of(entry) / (released or path.name)  # the ending says how a file is read
    digest = sha256(path)
    earlier = store.find(entry)
    store.check(entry, path, digest, store.read_note(target))
    if earlier is not None and sha256(earlier) != digest:
        raise CheckpointError(f"{entry.name}: {earlier} is another file", hint="remove it to use the new one")
    fits(entry, path)
    if earlier is None:
        share(path.resolve(), target)
    store.write_note(earlier or target, digest, f"imported from {path.name}")
    return store.Held(earlier or target, digest, f"imported from {path.name}")


def _source(entry: Entry) -> tuple[Source, str | None]:
    """The address of an entry's file, and its sha256 where the server knows it."""
    url = str(entry.url)
    where = named.parts_of_hub(url)
    return _of_hub(where) if where else (Source(url, size=entry.size), None)


def _of_hub(where: Mapping[str, str | None]) -> tuple[Source, str | None]:
    hub = _hub()
    address = hub.hf_hub_url(where["repository"], where["file"], revision=where["revision"])
    known = _ask(f"hf:{where['repository']}", functools.partial(hub.get_hf_file_metadata, address))
    digest = known.etag if known.etag and re.fullmatch("[0-9a-f]{64}", known.etag) else None
    return Source(address, hub.utils.build_hf_headers(), known.size), digest


def _usual_file(name: str) -> str:
    hub, where = _hub(), named.parts_of_hub(name) or {}
    for file in named.USUAL:
        address = hub.hf_hub_url(where["repository"], file, revision=where["revision"])
        try:
            _ask(f"hf:{where['repository']}", functools.partial(hub.get_hf_file_metadata, address))
        except _NoSuchFile:
            continue
        return file
    raise FetchError(f"{name}: holds none of {', '.join(named.USUAL)}", hint=f"name a file: {name}/FILE")


class _NoSuchFile(FetchError):
    pass


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UsageError(
            "weights on the Hugging Face hub need the package huggingface_hub", hint="pip install 'detrbench[hub]'"
        ) from error
    return huggingface_hub


def _ask(named: str, question: Callable[[], Any]) -> Any:
    """The hub's answer; whatever goes wrong there is told in one line."""
    from huggingface_hub import errors

    try:
        return question()
    except errors.GatedRepoError as error:
        raise FetchError(f"{named}: asks for an agreement", "accept it in a browser, then: hf auth login") from error
    except errors.RepositoryNotFoundError as error:
        raise FetchError(
            f"{named}: no such repository, or a private one", "for a private one: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FetchError(f"{named}: no such revision there") from error
    except errors.EntryNotFoundError as error:
        raise _NoSuchFile(f"{named}: no such file there") from error
    except (errors.HTTPError, OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FetchError(f"{named}: no answer of the hub: {first}", "check the connection, and HF_ENDPOINT") from error
