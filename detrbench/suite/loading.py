"""Finds, reads and checks suites. Imports no torch.

A suite is one table or figure: variants (rows) that can be run at named scales.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

import detrbench
from detrbench import renamed, yaml12
from detrbench.errors import SuiteError, UsageError, unknown_name
from detrbench.external.sources import FACTORY
from detrbench.files import at_home
from detrbench.suite import expressions
from detrbench.suite.cells import LoadedSuite, located
from detrbench.suite.schema import EXTERNAL, Scale, SharedScales, Suite
from detrbench.suite.validation import explain
from detrbench.words import problem_of_name

FOLDER = Path(detrbench.__file__).resolve().parent / "suites"


def names() -> list[str]:
    """The suites that come with detrbench, as a table of contents has them: `table2` before `table10`."""
    return sorted((path.stem for path in FOLDER.glob("*.yaml")), key=_by_number)


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def locate(suite: str) -> Path:
    """The file of a suite: a path, or the name of one that comes with detrbench (`quickstart`); former names do too."""
    path = at_home(suite)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if path.is_file():
            return path
        path = path.with_name(f"{renamed.current(path.stem)}{path.suffix}")
        if path.is_file():
            return path
        if (FOLDER / path.name).is_file() and path.parts[0] == "suites":
            return FOLDER / path.name  # `suites/quickstart.yaml` works from any directory
        raise SuiteError(f"{suite}: no such file", hint=f"suites that come with detrbench: {', '.join(names())}")
    if (FOLDER / f"{renamed.current(suite)}.yaml").is_file():
        return FOLDER / f"{renamed.current(suite)}.yaml"
    raise unknown_name("suite", suite, names(), "detrbench list suites")


def load(suite: str | Path) -> LoadedSuite:
    """Reads and checks a suite by path or name."""
    return read(yaml12.load(locate(str(suite))))


def read(document: yaml12.Document) -> LoadedSuite:
    """Checks a parsed suite."""
    if not isinstance(document.value, dict):
        raise document.error((), "expected a mapping with name, title, variants and scales")
    try:
        suite = Suite.model_validate(document.value)
    except ValidationError as error:
        raise explain(error, document, Suite) from None
    suite = _with_shared_scales(suite, document)
    loaded = LoadedSuite(suite, document)
    if suite.default_scale not in (None, *suite.scales):
        raise _unknown_at(loaded, ("default_scale",), suite.default_scale, suite.scales)
    for name, scale in suite.scales.items():
        with located(document, ("scales", name)):
            problem = problem_of_name(name)
            if problem:
                raise UsageError(problem, hint="scales name folders: letters, digits, '-', '.', '_'")
            scale.check()
    for i, variant in enumerate(suite.variants):
        external = suite.name == EXTERNAL and variant.model is None
        if (variant.model is None) != variant.published_only and not external:
            problem = "expected a model, or `model: null` together with `published_only: true`"
            raise document.error(("variants", i, "model"), problem)
        if (variant.model == EXTERNAL) != (variant.source is not None):
            raise document.error(("variants", i, "source"), f"expected `model: {EXTERNAL}` together with a `source`")
        if variant.python is not None and not str(variant.source).startswith(f"{FACTORY}:"):
            hint = "the function need not know detrbench: docs/your-detector.md"
            raise document.error(("variants", i, "python"), f"expected a source {FACTORY}:...", hint)
        for key in ("weights_of", "official"):
            if variant.source is not None and getattr(variant, key) is not None:
                hint = "name its weights as `checkpoint`"
                raise document.error(("variants", i, key), "expected none for a detector from elsewhere", hint)
        for name in variant.scales:
            if name not in suite.scales:
                raise _unknown_at(loaded, ("variants", i, "scales", name), name, suite.scales)
    loaded.check()
    expressions.place(document, suite.budgets)
    return loaded


@functools.cache
def shared_scales() -> Mapping[str, Scale]:
    """The scales that suites may build on: suites/shared/scales.yaml. One may build on another that stands above it."""
    document = yaml12.load(FOLDER / "shared" / "scales.yaml")
    try:
        written = SharedScales.model_validate(document.value).scales
    except ValidationError as error:
        raise explain(error, document, SharedScales) from None
    scales: dict[str, Scale] = {}
    for name, scale in written.items():
        scales[name] = _filled(scale, scales, document, ("scales", name))
    return scales


def _with_shared_scales(suite: Suite, document: yaml12.Document) -> Suite:
    """The suite with each `like` replaced by the keys of the scale that it names."""

    def filled(scales: Mapping[str, Scale], key: yaml12.KeyPath) -> dict[str, Scale]:
        return {name: _filled(scale, shared_scales(), document, (*key, name)) for name, scale in scales.items()}

    variants = [
        variant.model_copy(update={"scales": filled(variant.scales, ("variants", i, "scales"))})
        if variant.scales
        else variant
        for i, variant in enumerate(suite.variants)
    ]
    return suite.model_copy(update={"scales": filled(suite.scales, ("scales",)), "variants": variants})


def _filled(scale: Scale, shared: Mapping[str, Scale], document: yaml12.Document, key: yaml12.KeyPath) -> Scale:
    if scale.like is None:
        return scale
    if scale.like not in shared:
        error = unknown_name("shared scale", scale.like, shared)
        raise document.error((*key, "like"), error.message, error.hint)
    own = scale.model_dump(exclude_unset=True, exclude={"like"})
    return shared[scale.like].merged(Scale(**own)).model_copy(update={"like": scale.like})


def _unknown_at(loaded: LoadedSuite, key: yaml12.KeyPath, name: str | None, known: Iterable[str]) -> SuiteError:
    error = unknown_name("scale", str(name), known)
    return loaded.document.error(key, error.message, error.hint)
