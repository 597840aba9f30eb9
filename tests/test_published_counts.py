"""Published GFLOPs beside ours: which figures, under which rule, and that every gap has a reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from detrbench import published_counts
from detrbench.measure import protocols
from detrbench.suite.cells import Cell

Found = list[published_counts.PublishedCount]


def counting(found: Mapping[str, float]) -> tuple[published_counts.Count, list[tuple[str, str]]]:
    """A counter that gives every part `found[protocol]`, and the (cell, protocol) pairs that it was asked for."""
    asked: list[tuple[str, str]] = []

    def count(cell: Cell, protocol: str) -> Mapping[str, Any]:
        asked.append((cell.id, protocol))
        parts = dict.fromkeys(("backbone", "neck", "encoder", "queries", "decoder", "heads"), found[protocol])
        return {"gflops": sum(parts.values()), "gflops_by_part": parts}

    return count, asked


def test_figures_of_one_suite_by_part() -> None:
    count, asked = counting({"common": 1.0, "lite_table": 10.0})
    found = published_counts.compare("lite_table1", count)
    assert [(row.cell, row.figure, row.published, row.ours, row.common) for row in found[:4]] == [
        ("dino-4scale", "gflops", 235, 60.0, 6.0),
        ("dino-4scale", "backbone_gflops", 70, 10.0, 1.0),
        ("dino-4scale", "encoder_gflops", 137, 10.0, 1.0),
        ("dino-4scale", "decoder_gflops", 28, 20.0, 2.0),
    ]
    assert found[0].difference_percent == pytest.approx(100 * (60 / 235 - 1))
    assert len(asked) == len(set(asked)) == 4
    assert found[0].reason is None
    assert "what is left of the total" in str(found[3].reason)


def test_all_suites_show_each_figure_once_and_equal_detectors_are_counted_once() -> None:
    count, asked = counting(dict.fromkeys(protocols.of("complexity"), 1.0))
    found = published_counts.compare(None, count)
    figures = [(row.table, row.published, row.cell, row.figure) for row in found]
    assert len(figures) == len(set(figures)) > 100
    papers = {"focus_detr", "lite_detr", "rt_detr", "rt_detr_v2", "sparse_detr"}
    assert {row.table.partition("/")[0] for row in found} >= papers | {"deformable_detr", "torchvision"}
    assert all(row.protocol for row in found)
    assert len(asked) < len(found)
    # focus_table6_keep_ratio and focus_table3_correlation have the same detectors under the same rules
    assert [protocol for cell, protocol in asked if cell in ("sparse-0.3", "priori-sparse")].count("sparse_table1") == 1


def test_a_table_takes_the_place_of_its_papers_others() -> None:
    count, _ = counting({"common": 1.0, "deformable_table": 2.0, "sparse_table1": 3.0})
    found = published_counts.compare("sparse_detr/readme_main", count)
    assert {row.table for row in found} == {"sparse_detr/readme_main"}
    assert {row.cell: row.published for row in found}["sparse-0.3"] == 120.5


@pytest.mark.parametrize(
    ("ours", "reason", "recorded", "unexplained"),
    [
        (100.9, None, None, None),
        (101.1, None, None, "+1.1 % is not accounted for"),
        (98.9, "why", None, "-1.1 % is not accounted for"),
        (100.9, "why", None, None),
        (118.6, "why", 18.6, None),
        (118.8, "why", 18.6, "+18.6 % is on record"),
        (100.0, "why", 18.6, "+18.6 % is on record"),
        (118.6, None, 18.6, "+18.6 % is not accounted for"),
        (None, None, None, None),
    ],
)
def test_a_difference_is_small_or_on_record(
    ours: float | None, reason: str | None, recorded: float | None, unexplained: str | None
) -> None:
    row = published_counts.PublishedCount("", "", "", "gflops", 100.0, "", ours, 1.0, reason, recorded)
    assert row.unexplained == unexplained


def test_a_figure_with_a_reason_has_its_difference_on_record() -> None:
    count, _ = counting(dict.fromkeys(protocols.of("complexity"), 1.0))
    found = published_counts.compare("focus_table3_correlation", count)
    recorded = {row.cell: row.recorded_percent for row in found if row.reason}
    assert recorded["dn"] == 18.6
    assert None not in recorded.values()
    assert {row.unexplained for row in found if row.reason} == {
        f"{value:+.1f} % is on record" for value in recorded.values()
    }


@pytest.mark.parametrize(
    "what", ["lite_table1", "peers", pytest.param(None, marks=pytest.mark.full)], ids=["one", "elsewhere", "all"]
)
def test_every_published_figure_is_met_or_as_far_as_on_record(what: str | None) -> None:
    """Within 1 % under the rule of its table, or as far from it as is on record."""
    import functools

    from detrbench import models
    from detrbench.external import loading
    from detrbench.measure import complexity
    from detrbench.results import records

    def count(cell: Cell, protocol: str) -> Mapping[str, Any]:
        create: Any = functools.partial(models.create, cell.model, **cell.complexity_options)
        if cell.external is not None:
            create = functools.partial(loading.load, cell.external, cell.options)
        rule = protocols.get("complexity", protocol)
        if protocol == "common":
            rule = rule.at(256, 256)  # not what is looked at here
        return dict(records.to_json(complexity.measure(create, rule)))

    found = published_counts.compare(what, count)
    assert found
    unexplained = {f"{row.table} {row.cell} {row.figure}: {row.published} {row.ours}": row.unexplained for row in found}
    assert {figure: why for figure, why in unexplained.items() if why} == {}
