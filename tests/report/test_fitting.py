"""A page that holds no more than can be opened: of the longest suites the first rows, and it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from detrbench.report import fitting, page, sections
from detrbench.report.fitting import ROWS_OF_A_PAGE
from detrbench.report.sections import Section
from detrbench.results.store import ResultsStore


@pytest.mark.parametrize(("lengths", "most"), [
    ([], 0),
    ([3, 300], 300),
    ([ROWS_OF_A_PAGE], ROWS_OF_A_PAGE),
    ([ROWS_OF_A_PAGE + 1], ROWS_OF_A_PAGE),
    ([500] * 20, 50),
    ([10, 2000, 2000], 495),
    ([1] * 3000, 1),
])  # fmt: skip
def test_all_sections_together_fit(lengths: list[int], most: int) -> None:
    assert fitting._most(lengths) == most
    assert sum(min(length, most) for length in lengths) <= max(ROWS_OF_A_PAGE, len(lengths))


@pytest.fixture
def found(results: Path) -> list[Section]:
    return sections.read(ResultsStore(results))


def test_what_fits_is_left_alone(found: list[Section]) -> None:
    assert fitting.fitted(found) == found
    assert [fitting.left_out(section) for section in found] == ["", ""]


def test_a_page_says_what_it_has_no_room_for(found: list[Section], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "ROWS_OF_A_PAGE", 6)
    monkeypatch.setattr(fitting, "ROWS_OF_A_DRAWING", 2)
    rows = {section.suite: len(section.entries) for section in found}
    text = page.render(found)
    for suite, number in rows.items():
        assert f"The first 3 of {number} rows, as a page holds 6" in text
        assert f"detrbench report {suite} --format csv" in text
    assert "which have room for 2 of 3 rows" in text
    assert "GFLOPs by part. " not in text  # how the drawing's description begins
    assert "AP by category, smoke" not in text  # the heading of the table
    table6 = text.partition('id="focus_table6_keep_ratio-smoke"')[2].partition("</section>")[0]
    assert "sparse-0.3" in table6
    assert "sparse-0.4" not in table6
