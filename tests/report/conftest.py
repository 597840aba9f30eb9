"""Results folders with invented figures for the report's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import report_fixture


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two suites: one with a published table and rows that are not built, one without."""
    root = tmp_path / "results"
    return report_fixture.write_quickstart(report_fixture.write_table6(root))
