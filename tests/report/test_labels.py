"""How figures are written."""

from __future__ import annotations

import math

import pytest

from detrbench.report import labels

MINUS, THIN = "\N{MINUS SIGN}", "\N{NARROW NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "decimals", "sign", "text"),
    [
        (3.14159, 2, False, "3.14"),
        (-3.14159, 1, False, f"{MINUS}3.1"),
        (3.0, 1, True, "+3.0"),
        (-0.04, 1, True, "0.0"),  # nothing that is shown as zero has a sign
        (0.04, 1, True, "0.0"),
        (1234567.8, 1, False, f"1{THIN}234{THIN}567.8"),
        (None, 1, False, labels.ABSENT),
        (math.nan, 1, False, labels.ABSENT),
        (math.inf, 1, False, labels.ABSENT),
    ],
)
def test_fixed(value: float | None, decimals: int, sign: bool, text: str) -> None:
    assert labels.fixed(value, decimals, sign) == text


def test_intervals() -> None:
    assert labels.interval(-1.0, 45.67, 1) == f"[{MINUS}1.0, 45.7]"
    assert labels.interval(None, 3.0, 1) == ""


def test_footnotes_go_on_behind_z() -> None:
    letters = [labels.letter(index) for index in (0, 1, 25, 26, 27, 51, 52, 701, 702)]
    assert letters == ["a", "b", "z", "aa", "ab", "az", "ba", "zz", "aaa"]


def test_figures_as_their_source_prints_them() -> None:
    assert [labels.printed(value) for value in (121, 46.0, -0.5, None)] == ["121", "46.0", f"{MINUS}0.5", labels.ABSENT]


def test_names() -> None:
    assert labels.table_name("focus_detr/table6") == "Table 6"
    assert labels.table_name("lite_detr/figure2") == "Figure 2"
    assert labels.data_label({"data": "coco", "path": "/data/bccd"}) == "data folder bccd"
    assert labels.data_label({"data": "coco", "path": "/data/coco2017/"}) == "COCO"
    assert labels.data_label({"data": "shapes", "image_size": 128}) == "shapes 128 px"
    assert labels.shown("backbone", "swin_base_384") == "Swin-B, 384"
    assert labels.shown("box_refine", True) == "yes"
