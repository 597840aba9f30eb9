"""The released weights as data: models/zoo/weights.yaml, checked and looked up by name. Imports no torch."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from detrbench import models, yaml12
from detrbench.errors import UsageError, unknown_name

FILE = Path(models.__file__).resolve().parent / "zoo" / "weights.yaml"
BACKBONES = "backbones"
HUB = "hub"  # the family of what is no weights of the catalogue and lies on the Hugging Face hub


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Weights(_Strict):
    model: str | None = None
    options: dict[str, Any] = {}
    ap: float | dict[str, float] | None = None
    file: str | None = None
    url: str | None = None
    by_hand: str | None = None
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{8,64}$")
    size: int | None = None
    note: str | None = None


class _Family(_Strict):
    paper: str
    code: str
    licence: str
    adapter: str | None = None
    protocol: str | None = None
    options: dict[str, Any] = {}
    start: str | None = Field(default=None, alias="from")
    by_hand: str | None = None
    weights: dict[str, _Weights]


class LeftOut(_Strict):
    """What a repository releases and no detector here can be, and why."""

    what: str
    code: str
    why: str


class _Catalogue(_Strict):
    families: dict[str, _Family]
    left_out: list[LeftOut]


@dataclass(frozen=True)
class Entry:
    """One released file of weights.

    Args:
        name: `family/name`.
        model: the detector's name; None for a backbone.
        options: its options, as `models.create` takes them.
        ap: published box AP on COCO val2017 by accuracy protocol.
        url: `https://...` or `hf:organisation/repository@revision/file`; None where only a person can fetch it.
        by_hand: the page from which a person can.
        sha256: of the file, in full or its first digits; None where it is not published.
        size: in bytes, where it is published.
        adapter: whose parameter names the file uses.
        paper, code, licence, note: as in the catalogue.
    """

    name: str
    model: str | None
    options: Mapping[str, Any]
    ap: Mapping[str, float]
    url: str | None
    by_hand: str | None
    sha256: str | None
    size: int | None
    adapter: str | None
    paper: str
    code: str
    licence: str
    note: str | None

    @property
    def family(self) -> str:
        """The place that released it."""
        return self.name.partition("/")[0]

    @property
    def file(self) -> str | None:
        """The file's name as released; None where only a person gets to see it."""
        return PurePosixPath(self.url).name if self.url else None


@functools.cache
def entries() -> Mapping[str, Entry]:
    """All weights by name, in the catalogue's order."""
    families = _read().families.items()
    found = [_entry(family, group, name, w) for family, group in families for name, w in group.weights.items()]
    return {entry.name: entry for entry in found}


def left_out() -> list[LeftOut]:
    """What the same repositories release and no detector here can be."""
    return _read().left_out


@functools.cache
def _read() -> _Catalogue:
    return _Catalogue.model_validate(yaml12.load(FILE).value)


def _entry(family: str, group: _Family, name: str, one: _Weights) -> Entry:
    options = {key: value for key, value in {**group.options, **one.options}.items() if value is not None}
    ap = {str(group.protocol): one.ap} if isinstance(one.ap, float) else one.ap or {}
    return Entry(
        name=f"{family}/{name}",
        model=one.model,
        options=options,
        ap=ap,
        url=f"{group.start}{one.file}" if one.file else one.url,
        by_hand=one.by_hand or group.by_hand,
        sha256=one.sha256,
        size=one.size,
        adapter=group.adapter,
        paper=group.paper,
        code=group.code,
        licence=group.licence,
        note=one.note,
    )


def get(name: str) -> Entry:
    """The weights of that name; unknown ones raise UsageError with the nearest match."""
    if name not in entries():
        raise unknown_name("weights", name, entries(), "detrbench weights list")
    return entries()[name]


def of_model(model: str) -> list[Entry]:
    """All weights of one detector."""
    return [entry for entry in entries().values() if entry.model == model]


def options_for(entry: Entry, model: str, options: Mapping[str, Any], changed: Collection[str] = ()) -> dict[str, Any]:
    """The options with which a detector described by `model` and `options` is the one that was trained.

    What the description leaves open is as it was trained; what it names has to be, but for what is meant to be
    `changed`.

    Raises:
        UsageError: it is another detector; the message names the difference.
    """
    if entry.model is None:
        raise UsageError(f"{entry.name}: weights of a backbone, not of a detector", hint="see detrbench weights list")
    theirs = models.resolve(entry.model, entry.options)
    _refuse(entry, theirs.parts, models.resolve(model, options).parts, changed)
    chosen = {**entry.options, **options}
    _refuse(entry, theirs.options, models.resolve(model, chosen).options, changed)
    return chosen


def _refuse(entry: Entry, trained: Mapping[str, Any], here: Mapping[str, Any], changed: Collection[str]) -> None:
    """Raises UsageError where parts or options are not those of the training."""
    names = [name for name in {**trained, **here} if name not in changed]
    different = [name for name in names if here.get(name) != trained.get(name)]
    if different:
        listed = ", ".join(f"{name} is {trained.get(name)}, here {here.get(name)}" for name in different[:4])
        more = f", and {len(different) - 4} more" if len(different) > 4 else ""
        raise UsageError(f"{entry.name}: weights of another detector: {listed}{more}")
