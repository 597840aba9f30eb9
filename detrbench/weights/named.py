"""Weights as a user names them: released ones by name, a file of the hub, or any file. Imports no torch.

Whatever takes weights takes all three. Nothing here asks the network: of what is not here it is said how it comes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from detrbench.errors import UsageError, nearest
from detrbench.files import at_home, sha256_once
from detrbench.weights import catalogue, store
from detrbench.weights.catalogue import HUB, Entry

OWN = "a file of the user's"
USUAL = ("model.safetensors", "pytorch_model.bin")  # of a repository that is named without a file
_HUB = re.compile(r"hf:(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?")


@dataclass(frozen=True)
class Weights:
    """A file of weights that is here; `entry` says which released ones it holds, None for a file of the user's own."""

    path: Path
    entry: Entry | None = None
    noted: str | None = None

    @property
    def sha256(self) -> str:
        """Of the file, in hex."""
        return self.noted or sha256_once(self.path)

    @property
    def source(self) -> str:
        """Where it is published."""
        return str(self.entry.url or self.entry.by_hand) if self.entry else OWN

    @property
    def official(self) -> str | None:
        """Name and sha256 of weights of the catalogue; None for others."""
        released = self.entry is not None and self.entry.family != HUB
        return f"{self.entry.name}, sha256 {self.sha256}" if self.entry and released else None

    def options(self, model: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of the detector that loads them: as said, and what is left open as it was trained.

        Raises:
            UsageError: what is left open makes another detector than the one that was trained.
        """
        if self.entry is None or self.entry.family == HUB:
            return dict(options)
        return catalogue.options_for(self.entry, model, options, changed=options)


def find(given: str, key: str, allowed: str = "a file") -> Weights:
    """The weights that a user names.

    Args:
        given: a name of the catalogue, `hf:ORGANISATION/REPOSITORY[@REVISION][/FILE]`, or a file. A file that is called
            as released weights are is named with its folder: `./sparse_detr/r50_rho0.3`.
        key: what asks for them; begins the message of an error.
        allowed: what that takes beside a name.

    Raises:
        UsageError: they are not here; the message says how they come.
        CheckpointError: the file is not the one that was released, or not the one that it was at its first use.
    """
    if is_name(given):
        entry = entry_of(given)
        found = next((here for each in files_of(entry) if (here := here_of(each))), None)
        if found is None:
            raise UsageError(f"{key}: {given} is not here ({how_to_get(entry, given)})")
        return found
    path = at_home(given)
    if not path.is_file():
        raise _no_file(given, key, allowed)
    return Weights(path)


def here_of(entry: Entry) -> Weights | None:
    """Released weights, if they are here; raises CheckpointError as `find` does."""
    held = store.held(entry)
    return Weights(held.path, entry, held.sha256) if held else None


def is_name(given: str) -> bool:
    """Whether that names no file but weights of the catalogue or of the hub."""
    return given.startswith("hf:") or given in catalogue.entries()


def beside(folder: Path, given: str) -> str:
    """The same, understood from everywhere: a relative path is one from `folder`."""
    return given if is_name(given) else str(folder / at_home(given))


def how_to_get(entry: Entry, name: str | None = None) -> str:
    """What to do where released weights are not here; `name` is what they were asked for by."""
    if entry.by_hand and entry.url is None:
        return f"by hand from {entry.by_hand}, then: detrbench weights import FILE --as {entry.name}"
    return f"detrbench weights fetch {name or entry.name}"


def entry_of(name: str) -> Entry:
    """What a name stands for; of a repository of the hub that is named without a file, `url` is None.

    Raises:
        UsageError: no weights of that name.
    """
    if not name.startswith("hf:"):
        return catalogue.get(name)
    match = _HUB.fullmatch(name)
    if match is None or ".." in PurePosixPath(name).parts:
        raise UsageError(f"{name}: expected hf:ORGANISATION/REPOSITORY[@REVISION][/FILE]")
    for entry in catalogue.entries().values():
        if entry.url and (entry.url == name or entry.url.partition("@")[0] == name):
            return entry
    repository = match["repository"] + (f"@{match['revision']}" if match["revision"] else "")
    entry = Entry(
        name=f"{HUB}/{repository}",
        model=None,
        options={},
        ap={},
        url=None,
        by_hand=None,
        sha256=None,
        size=None,
        adapter=None,
        paper="",
        code=f"huggingface.co/{match['repository']}",
        licence="see its model card",
        note=None,
    )
    return with_file(entry, match["file"]) if match["file"] else entry


def with_file(entry: Entry, file: str) -> Entry:
    """A repository's entry with one of its files; those of other folders lie in other folders here, too."""
    repository, folder = entry.name.removeprefix(f"{HUB}/"), PurePosixPath(file).parent
    return replace(entry, name=str(PurePosixPath(entry.name) / folder), url=f"hf:{repository}/{file}")


def parts_of_hub(url: str) -> Mapping[str, str | None] | None:
    """`repository`, `revision` and `file` of an address on the hub; None for others."""
    match = _HUB.fullmatch(url)
    return match.groupdict() if match else None


def files_of(entry: Entry) -> list[Entry]:
    """The entry itself, or of a repository that is named without a file one for each of those it usually has."""
    unnamed = entry.family == HUB and entry.url is None
    return [with_file(entry, file) for file in USUAL] if unnamed else [entry]


def _no_file(given: str, key: str, allowed: str) -> UsageError:
    said = "/".join(Path(given).parts[-2:])
    family = [name for name, entry in catalogue.entries().items() if said.startswith(f"{entry.family}/")]
    like = nearest(said, family)
    hint = f"did you mean {like!r}? " if like else ""
    return UsageError(
        f"{key}: expected {allowed}, got {given!r}, which is not there",
        hint=f"{hint}names of released weights: detrbench weights list",
    )
