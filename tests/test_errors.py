"""What an error suggests for a name that is none: what begins so, then what looks like it."""

from __future__ import annotations

import pytest

from detrbench.errors import nearest, unknown_name

KNOWN = ["focus_table6_keep_ratio", "focus_table9_swin", "lite_table6", "quickstart"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("focus_table6", "focus_table6_keep_ratio"),  # by its letters it is nearer to focus_table9_swin
        ("quikstart", "quickstart"),
        ("lite", "lite_table6"),
        ("nothing like it", None),
        ("", None),
    ],
)
def test_the_nearest_name(typed: str, meant: str | None) -> None:
    assert nearest(typed, KNOWN) == meant


def test_near_names_come_first_and_all_where_they_are_few() -> None:
    assert unknown_name("suite", "focus_table6", KNOWN).hint == (
        "did you mean 'focus_table6_keep_ratio'? known: " + ", ".join(KNOWN)
    )
    many = [f"focus_{number}" for number in range(30)]
    hint = str(unknown_name("suite", "focus", many, "detrbench list suites").hint)
    assert hint == ("did you mean 'focus_0'? also near: focus_1, focus_2, focus_3, focus_4; all: detrbench list suites")
