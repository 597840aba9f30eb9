"""Options of detectors, measures and protocols: read from the catalogue and the registers that hold them."""

from __future__ import annotations

from collections.abc import Mapping

from suite_file import yaml_of
from tables import code, table

from detrbench import models
from detrbench.measure import protocols
from detrbench.measures import CHOSEN, MEASURES
from detrbench.models.catalogue import COMMON, CRITERION
from detrbench.models.options import Option
from detrbench.models.parts import ALL_KINDS, Part


def options() -> str:
    """What every detector takes, then each part with its own options."""
    common = f"## Every detector\n\n{_options(COMMON)}\n\n## Training objective\n\n{_options(CRITERION)}"
    kinds = ([part for part in models.all_parts() if part.kind == kind] for kind in ALL_KINDS)
    return "\n\n".join([common, *(f"## Kind: `{parts[0].kind}`\n\n{_parts(parts)}" for parts in kinds)])


def _parts(parts: list[Part]) -> str:
    return "\n\n".join(f"### `{part.name}`\n\n{part.summary}\n\n{_options(part.options)}" for part in parts)


def _options(given: Mapping[str, Option]) -> str:
    rows = (
        [code(name), str(option.accepts), code(yaml_of(option.default)), option.doc] for name, option in given.items()
    )
    return table(("option", "values", "default", "means"), rows) if given else ""


def measures() -> str:
    """A row a measure that a suite may name."""
    rows = (
        [
            code(name),
            MEASURES[name].label,
            "yes" if MEASURES[name].needs_weights else "no",
            ", ".join(code(rule) for rule in protocols.of(name)),
        ]
        for name in CHOSEN
    )
    return table(("measure", "gives", "needs trained weights", "protocols"), rows)


def rules() -> str:
    """A row a protocol of GFLOPs, of latency and of AP, with its rule in words."""
    rows = (
        [code(rule.name), MEASURES[measure].label, rule.title, rule.convention]
        for measure in ("complexity", "latency", "accuracy")
        for rule in protocols.of(measure).values()
    )
    return table(("protocol", "of", "for", "rule"), rows)
