"""Variants are found in the zoo's folder, and parts of plug-ins are listed at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def python(code: str, *folders: Path) -> str:
    path = os.pathsep.join(map(str, (PROJECT, *folders)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "300"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_module_in_the_zoo_is_registered_without_another_edit(tmp_path: Path) -> None:
    (tmp_path / "made_up.py").write_text(
        "from dataclasses import replace\n"
        "from detrbench.models.zoo import register_family\n"
        "from detrbench.models.zoo.sparse import SPARSE\n"
        "register_family(replace(SPARSE, name='made_up_detr'))\n"
    )
    code = f"from detrbench.models import zoo; zoo.__path__.append({str(tmp_path)!r}); print(zoo.variant_names())"
    assert "'made_up_detr_tiny'" in python(code)


PART = "models.register(models.Part('encoder', 'made_up', 'made_up_plugin:Encoder', 'an encoder of a plug-in'))"
VARIANT = "models.register(replace(models.describe('dino_r50'), name='made_up_detr', summary='a variant of a plug-in'))"


def plugin(folder: Path, *lines: str) -> Path:
    """Installs the package `made-up`, whose module has these lines."""
    (folder / "made_up_plugin.py").write_text("\n".join(lines))
    distribution = folder / "made_up-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[detrbench.models]\nmade_up = made_up_plugin\n")
    return folder


def typed(*words: str) -> str:
    return f"from detrbench import cli; print('exit code', cli.main({list(words)}))"


def test_parts_and_variants_of_a_plugin_are_listed_at_once(tmp_path: Path) -> None:
    installed = plugin(tmp_path, "from dataclasses import replace", "from detrbench import models", PART, VARIANT)
    assert "an encoder of a plug-in" in python(typed("list", "parts"), installed)
    assert "a variant of a plug-in" in python(typed("list", "models"), installed)
    code = "from detrbench.models.parts import {0}; print({1})"
    assert "made_up" in python(code.format("part_names", "part_names('encoder')"), installed)
    assert "made_up" in python(code.format("get_part", "get_part('encoder', 'made_up').name"), installed)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["import nowhere_to_be_found"], "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        (["from detrbench import models", PART, PART], "UsageError: encoder 'made_up' is registered already"),
    ],
)
def test_a_broken_plugin_is_named_with_what_to_do(tmp_path: Path, lines: list[str], why: str) -> None:
    said = python(typed("list", "parts"), plugin(tmp_path, *lines))
    assert f"plug-in 'made_up' of the package 'made-up' cannot be loaded: {why}" in said
    assert "pip uninstall made-up" in said
    assert "exit code 4" in said
    assert "Traceback" not in said
    checked = "from detrbench.cli import doctor; print(doctor._plugins())"
    assert "state='missing', found='made_up (made-up 1.0)'" in python(checked, tmp_path)
