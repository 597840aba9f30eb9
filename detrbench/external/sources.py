"""Where a detector from elsewhere comes from, as a row of a suite names it, and what identifies it. Imports no torch.

    hf:ORGANISATION/REPOSITORY[@REVISION]   a repository of the Hugging Face hub, whose files are here
    hf:TYPE                                 a model type of transformers (rt_detr) at its default configuration
    torchvision:NAME                        a detector of torchvision
    factory:PACKAGE.MODULE:FUNCTION         a function that returns an `ExternalDetector`, or a module
    onnx:FILE                               what `detrbench export` wrote, in ONNX Runtime

Options of the row change the configuration of the first two, and are arguments of the others. Nothing here asks the
network: of what is not here it is said how it comes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detrbench.environment import version
from detrbench.errors import DetrbenchError, UsageError
from detrbench.external import interpreter
from detrbench.files import sha256_once
from detrbench.weights import named, store
from detrbench.words import shown
from detrbench.worker import identity as worker

FORMS = "hf:ORGANISATION/REPOSITORY, hf:TYPE, torchvision:NAME, factory:PACKAGE.MODULE:FUNCTION or onnx:FILE"
FACTORY, ONNX = "factory", "onnx"
CONFIGURATION = ("config.json", "preprocessor_config.json")  # files of a repository that say what its detector is


@dataclass(frozen=True)
class Source:
    """A parsed source.

    Attributes:
        text: as it was written.
        kind: what stands before the first colon, `hub` for a repository of it.
        name: what stands behind it.
    """

    text: str
    kind: str
    name: str

    @property
    def weights(self) -> str | None:
        """What weights come with it are called; None where they have to be named."""
        return {"hub": self.text, ONNX: self.name}.get(self.kind)

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that build it, on whose versions its figures depend."""
        own = self.name.partition(":")[0].partition(".")[0]
        return _PACKAGES.get(self.kind, (own,))


_PACKAGES = {
    "hub": ("transformers", "timm"),
    "hf": ("transformers", "timm"),
    "torchvision": ("torchvision",),
    ONNX: ("onnxruntime",),
}
_NAMES = {
    "hub": r"[^/@:]+/[^/@:]+(@[^/]+)?",
    "hf": r"[A-Za-z0-9_-]+",
    "torchvision": r"[a-z0-9_]+",
    "factory": r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*",
    ONNX: r".+\.onnx",
}


def parse(text: str) -> Source:
    """What a source names.

    Raises:
        UsageError: it has none of the forms.
    """
    prefix, _, name = text.partition(":")
    kind = "hub" if prefix == "hf" and "/" in name else prefix
    if kind not in _NAMES or not re.fullmatch(_NAMES[kind], name) or (kind != ONNX and ".." in name):
        raise UsageError(f"source: expected {FORMS}, got {shown(text)}")
    return Source(text, kind, name)


def identity(source: Source, options: Mapping[str, Any], python: str | None = None) -> list[Any]:
    """What figures of it depend on, its weights apart: source, options, versions, and the content of its files.

    Args:
        source: where it comes from.
        options: of the row.
        python: the interpreter that runs it, if that is another one.

    Raises:
        UsageError: it cannot be built there; the message says what is missing and how it comes.
    """
    if python is not None:
        found = interpreter.describe(python, source.packages[0])
        return [source.text, dict(options), found["versions"], found["sources"]]
    versions = {package: version(package) for package in source.packages}
    return [source.text, dict(options), versions, _CONTENT[source.kind](source)]


def lacking(source: Source, options: Mapping[str, Any], python: str | None = None) -> str | None:
    """Why it cannot be built, here or in another interpreter, and what to do; None where it can."""
    try:
        identity(source, options, python)
    except DetrbenchError as error:
        return error.message
    return None


def _of_hub(source: Source) -> dict[str, str]:
    _require(source, "transformers", "pip install 'detrbench[transformers]'")
    return {path.name: sha256_once(path) for path in configuration(source)}


def configuration(source: Source) -> list[Path]:
    """The files that say what the detector of a repository is.

    Raises:
        UsageError: they are not here.
    """
    entries = [named.entry_of(f"{source.text}/{name}") for name in CONFIGURATION]
    found = [store.held(entry) for entry in entries]
    missing = [f"{source.text}/{name}" for name, held in zip(CONFIGURATION, found) if held is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} not here (detrbench weights fetch {' '.join(missing)})")
    return [held.path for held in found if held is not None]


def _of_type(source: Source) -> None:
    _require(source, "transformers", "pip install 'detrbench[transformers]'")


def _of_torchvision(source: Source) -> None:
    _require(source, "torchvision", "pip install torchvision")


def _of_factory(source: Source) -> str:
    package = source.packages[0]
    try:
        return worker.sources_of(package)
    except ModuleNotFoundError:
        hint = "install it, or set PYTHONPATH"
        raise UsageError(f"{source.text}: no module {package!r} can be imported ({hint})") from None


def _of_onnx(source: Source) -> str:
    _require(source, "onnxruntime", "pip install 'detrbench[onnx]'")
    path = Path(source.name)
    if not path.is_file():
        raise UsageError(f"{source.text}: no such file (detrbench export MODEL -o FILE)")
    return sha256_once(path)


def _require(source: Source, package: str, hint: str) -> None:
    if version(package) is None:
        raise UsageError(f"{source.text}: needs the package {package} ({hint})")


_CONTENT: Mapping[str, Callable[[Source], Any]] = {
    "hub": _of_hub,
    "hf": _of_type,
    "torchvision": _of_torchvision,
    "factory": _of_factory,
    ONNX: _of_onnx,
}
