"""Variants are found in the zoo's folder, and parts of plug-ins are listed at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
    return done.stdout


def test_a_module_in_the_zoo_is_registered_without_another_edit(tmp_path: Path) -> None:
    (tmp_path / "made_up.py").write_text(
        "from dataclasses import replace\n"
        "from detrbench.models.zoo import register_family\n"
        "from detrbench.models.zoo.sparse import SPARSE\n"
        "register_family(replace(SPARSE, name='made_up_detr'))\n"
    )
    code = f"from detrbench.models import zoo; zoo.__path__.append({str(tmp_path)!r}); print(zoo.variant_names())"
    assert "'made_up_detr_tiny'" in python(code)


def test_parts_of_a_plugin_are_listed_at_once(tmp_path: Path) -> None:
    (tmp_path / "made_up_plugin.py").write_text(
        "from detrbench import models\n"
        "models.register(models.Part('encoder', 'made_up', 'made_up_plugin:Encoder', 'an encoder of a plug-in'))\n"
    )
    distribution = tmp_path / "made_up-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[detrbench.models]\nmade_up = made_up_plugin\n")
    assert "an encoder of a plug-in" in python("from detrbench import cli; cli.main(['list', 'parts'])", tmp_path)
    code = "from detrbench.models.parts import {0}; print({1})"
    assert "made_up" in python(code.format("part_names", "part_names('encoder')"), tmp_path)
    assert "made_up" in python(code.format("get_part", "get_part('encoder', 'made_up').name"), tmp_path)
