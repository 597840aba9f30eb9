"""`detrbench doctor`: what this machine can do, and what to install where it cannot."""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from detrbench import environment
from detrbench.cli import output, weights
from detrbench.cli.output import Json
from detrbench.errors import EnvironmentLacking

EXAMPLES = output.examples(
    "detrbench doctor",
    "detrbench doctor --data ~/coco --json",
)


@dataclass(frozen=True)
class Check:
    """One thing looked at. `missing` is what detrbench cannot do its main job without; `note` is worth knowing."""

    name: str
    state: Literal["ok", "note", "missing"]
    found: str
    advice: str | None = None


def command(
    data: Annotated[Path | None, typer.Option(metavar="PATH", help="A data set to check as well.")] = None,
    weights_folder: weights.Folder = None,
    as_json: Json = False,
) -> None:
    """Look at Python, PyTorch, the compiler, the compiled op, GPUs, data and weights. Exit code 4 if any is missing."""
    checks = list(_checks(data))
    if as_json:
        output.print_json({"checks": [asdict(check) for check in checks]})
    else:
        rows = [(c.state, c.name, c.found) for c in checks]
        output.console().print(output.table(["state", "what", "found"], rows))
        for check in checks:
            if check.advice:
                output.say(f"{check.name}: {check.advice}")
    missing = [check.name for check in checks if check.state == "missing"]
    if missing:
        raise EnvironmentLacking(f"missing: {', '.join(missing)}")


def _checks(data: Path | None) -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} at {sys.executable}")
    torch = _torch()
    if torch is None:
        yield Check("torch", "missing", "cannot be imported", "pip install 'torch>=2.11' 'torchvision>=0.26'")
        return
    yield Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    yield Check("cpu", "ok", f"{environment.cpu_model()}, {environment.cores()} cores, {_features(torch)}")
    yield _cuda(torch)
    yield _compiler()
    yield from _op()
    yield _plugins()
    yield from _weights()
    yield _data(data)


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


def _features(torch: Any) -> str:
    return str(torch.backends.cpu.get_cpu_capability())


def _cuda(torch: Any) -> Check:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Check("cuda", "ok", f"{torch.version.cuda}: {', '.join(names)}")
    why = "no CUDA device" if torch.version.cuda else "this PyTorch was built without CUDA"
    return Check("cuda", "note", f"{why}; everything runs on the CPU")


def _compiler() -> Check:
    for name in ("c++", "g++", "clang++"):
        if path := shutil.which(name):
            return Check("compiler", "ok", path)
    return Check(
        "compiler", "missing", "none found", "install a C++ compiler: apt install g++, or xcode-select --install"
    )


def _op() -> Iterator[Check]:
    """What serves deformable attention on each device; compiles the op if nobody has yet."""
    from detrbench.models.ops import build

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the check itself says what the warning would
        found = build.status()
    for device, kernels in found.items():
        if kernels["backend"] == "native":
            yield Check(f"op on {device}", "ok", f"native, {kernels['library']}")
        elif kernels["backend"] == "none":
            yield Check(f"op on {device}", "note", kernels["why"])
        else:
            yield Check(f"op on {device}", "missing", f"slow reference: {kernels['why']}", kernels["install"])


def _plugins() -> Check:
    """Parts and variants that other packages have brought."""
    from detrbench.models import parts

    names = ", ".join(parts.plugin_names()) or "none"
    try:
        parts.load_plugins()
    except EnvironmentLacking as error:
        return Check("plug-ins", "missing", names, f"{error.message}; {error.hint}")
    return Check("plug-ins", "ok", names)


def _weights() -> Iterator[Check]:
    """The files that training at the papers' scale begins with (`init: imagenet`)."""
    from detrbench.errors import UsageError
    from detrbench.models.backbones import imagenet
    from detrbench.run import start

    for names in imagenet.all_published():
        name = f"weights {names[0]}"
        try:
            found = start.find(names)
        except UsageError as error:
            yield Check(name, "missing", error.message, error.hint)
            continue
        if found is None:
            yield Check(name, "note", "not here", f"{start.how_to_get(names[0])}: detrbench weights fetch {names[0]}")
        else:
            yield Check(name, "ok", str(found.path))


def _data(data: Path | None) -> Check:
    if data is None:
        return Check("data", "ok", "shapes (generated); name a data set with --data")
    from detrbench.data import layouts
    from detrbench.errors import UsageError

    try:
        layout = layouts.recognise(data)
        layout.read(data, "val")
    except UsageError as error:
        return Check("data", "missing", error.message, error.hint)
    return Check("data", "ok", f"{data}, {layout.NAME} layout")
