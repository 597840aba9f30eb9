"""All that once got another answer than the documented one, by name, in `corpus/*.yaml`.

An entry has files and a command. `was` is the answer of then; `code` and `said` are what has to be answered now. Files
begin with those of `whole`, one of the sets of wholes.py, in which `replace` changes text.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import wholes
import yaml
from answers import Case, answer

CORPUS = Path(__file__).with_name("corpus")
WHOLES = {
    "nothing": dict,
    "suite": lambda: {"demo.yaml": yaml.safe_dump(wholes.SUITE, sort_keys=False).encode()},
    "results": wholes.results,
    "roboflow": lambda: wholes.roboflow()[1],
}


def entries() -> list[Any]:
    found = []
    for path in sorted(CORPUS.glob("*.yaml")):
        for name, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            found.append(pytest.param(entry, id=f"{path.stem}: {name}"))
    return found


@pytest.mark.parametrize("entry", entries())
def test_it_stays_mended(entry: Mapping[str, Any]) -> None:
    files = dict(WHOLES[entry.get("whole", "nothing")]())
    for pattern, changes in entry.get("replace", {}).items():
        (path,) = fnmatch.filter(files, pattern)
        for was, now in changes.items():
            assert was.encode() in files[path], f"{was} is not in {path}"
            files[path] = files[path].replace(was.encode(), now.encode())
    files |= {name: text.encode("utf-8", "surrogatepass") for name, text in entry.get("files", {}).items()}
    with answer(Case(tuple(entry["arguments"]), files)) as found:
        assert found.code == entry["code"], found.err
        assert entry["said"] in found.out + found.err
