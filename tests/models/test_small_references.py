"""Every family, training part and notable option at a small size: each figure is what it was when it was recorded.

The figures are from code whose official goldens were green (see `tests/reference/README.md`). A change that is meant
is recorded by `make record-references`, and its review shows which figures moved.
"""

from __future__ import annotations

import pytest
from reference import small
from reference.small_cases import CASES

from detrbench import models


@pytest.mark.parametrize("name", CASES)
def test_nothing_changed(name: str) -> None:
    assert small.changes(small.figures(CASES[name]), small.read(name)) == {}


def test_no_option_changed() -> None:
    assert small.changed_options(small.options(), small.read(small.OPTIONS)) == {}


def test_every_family_is_there() -> None:
    families = {name for name in models.names() if name.endswith("_tiny") and "swin" not in name}
    assert families == {case.create["name"] for case in CASES.values()}
