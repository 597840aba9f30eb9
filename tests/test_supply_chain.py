"""Dependencies: bounded on both sides, locked with hashes, and nothing that runs code of files passes the linter."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return dict(tomllib.load(file)["project"])


def test_dependencies_are_bounded_on_both_sides(project: dict[str, Any]) -> None:
    for text in project["dependencies"]:
        operators = {each.operator for each in Requirement(text).specifier}
        assert operators == {">=", "<"}, text


def test_what_is_imported_is_named(project: dict[str, Any]) -> None:
    """A package that only comes along with another may stay away with its next version."""
    distributions = {"PIL": "pillow", "yaml": "pyyaml", "pynvml": "nvidia-ml-py", "huggingface_hub": "huggingface-hub"}
    named = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    extras = {extra: given for extra, given in project["optional-dependencies"].items() if extra not in ("dev", "docs")}
    named |= {canonicalize_name(Requirement(text).name) for given in extras.values() for text in given}
    imported: set[str] = set()
    for folder in ("detrbench", "models"):
        for path in (ROOT / folder).rglob("*.py"):
            imported |= set(re.findall(r"^\s*(?:import|from) ([A-Za-z_]\w*)", path.read_text(encoding="utf-8"), re.M))
    outside = {name for name in imported if _is_installed(name)}
    assert {canonicalize_name(distributions.get(name, name)) for name in outside} <= named
    assert {"numpy", "torch", "typer"} <= outside


def _is_installed(name: str) -> bool:
    """Whether that is a package that had to be installed, of those that the text of a module mentions."""
    from importlib.util import find_spec

    if name in sys.stdlib_module_names or name == "detrbench":
        return False
    found = find_spec(name)
    return found is not None and "site-packages" in str(found.origin)


def test_the_lock_has_every_dependency_with_hashes(project: dict[str, Any]) -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", lock.split("make lock\n", 1)[1].strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock
    locked = {canonicalize_name(entry.split("==")[0]) for entry in entries}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {canonicalize_name(Requirement(text).name) for text in wanted} <= locked


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("S307", "eval(text)"),
        ("S102", "exec(text)"),
        ("S301", "pickle.loads(content)"),
        ("S302", "marshal.loads(content)"),
        ("S506", "yaml.load(text)"),
        ("S602", "subprocess.run(text, shell=True)"),
        ("S605", "os.system(text)"),
    ],
)
def test_the_linter_refuses_what_runs_code(rule: str, line: str) -> None:
    source = f"import marshal\nimport os\nimport pickle\nimport subprocess\n\nimport yaml\n\n{line}\n"
    settings = ["--config", str(ROOT / "pyproject.toml"), "--output-format=concise"]
    command = [sys.executable, "-m", "ruff", "check", *settings, "-"]
    said = subprocess.run(command, input=source, capture_output=True, text=True, check=False).stdout
    assert f" {rule} " in said
