"""Findings: which rows are held against each other, on what evidence, and in which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import report_fixture
import yaml

from detrbench.report import findings, pairs, sections
from detrbench.report.sections import Section
from detrbench.results.store import ResultsStore

WORDS = {"better", "worse", "same", "unclear"}


def section(root: Path, suite: str = "quickstart") -> Section:
    return sections.read(ResultsStore(root), [suite])[0]


def comparison(root: Path, subject: str) -> findings.Finding:
    found = {finding.subject: finding for finding in findings.about(section(root)).comparisons}
    assert subject in found, list(found)
    return found[subject]


def pairs_of(found: Section) -> list[tuple[str, str]]:
    return [(new.id, old.id) for new, old in pairs.worth_comparing(found)]


def test_rows_are_held_against_the_baseline(results: Path) -> None:
    assert pairs_of(section(results)) == [(f"sparse-{keep}", "deformable") for keep in (0.1, 0.3, 0.5)]


def test_rows_with_keep_ratios_are_held_against_their_neighbours(results: Path) -> None:
    expected = [(f"sparse-0.{i + 1}", f"sparse-0.{i}") for i in range(1, 5)]
    assert pairs_of(section(results, "table6_keep_ratio")) == expected


def test_methods_are_paired_at_equal_keep_ratios_on_equal_bases(results: Path) -> None:
    for path in results.glob("table6*/smoke/cells/*/cell.yaml"):
        records = {"common": report_fixture.complexity(100.0, "common")}
        report_fixture.write_records(path.parent, "complexity", records)
    found = pairs_of(section(results, "table6_keep_ratio"))
    assert ("focus-0.3", "sparse-dino-0.3") in found
    assert not [pair for pair in found if {"sparse-0.3"} & set(pair) and any("o" in name for name in pair)]
    assert len(found) == len(set(found)) == 5 + 3 * 4


def test_a_row_is_held_against_the_one_whose_weights_it_has_and_not_against_the_baseline(results: Path) -> None:
    path = next(results.glob("quickstart/smoke/cells/sparse-0.5-*/cell.yaml"))
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "weights_of": "sparse-0.1"}))
    expected = [("sparse-0.5", "sparse-0.1"), ("sparse-0.1", "deformable"), ("sparse-0.3", "deformable")]
    assert pairs_of(section(results)) == expected


def test_rows_with_other_parts_are_other_methods(results: Path) -> None:
    path = next(results.glob("quickstart/smoke/cells/sparse-0.5-*/cell.yaml"))
    cell = yaml.safe_load(path.read_text())
    cell["options"] |= {"encoder": "sparse_objectness", "keep_ratio": 0.3}
    cell["complexity_options"] = cell["options"]
    path.write_text(yaml.safe_dump(cell))
    methods = {entry.id: entry.identity.method for entry in section(results).entries}
    assert methods["sparse-0.3"] == methods["sparse-0.1"] == "Sparse DETR"
    assert methods["sparse-0.5"] == "Sparse DETR (objectness)"
    assert ("sparse-0.5", "sparse-0.3") in pairs_of(section(results))


def test_ap_is_paired_over_images_where_they_are_kept(results: Path) -> None:
    for cell, skill in (("deformable", 0.5), ("sparse-0.1", 0.8), ("sparse-0.3", 0.5)):
        report_fixture.write_images(results, cell, skill)
    better = comparison(results, "Sparse DETR at 0.1 against Deformable DETR")
    assert better.clauses[0].verdict == "better"
    assert re.match(r"\+\d+\.\d AP \[\d+\.\d, \d+\.\d\] at [\d.]+ against [\d.]+ GFLOPs$", better.clauses[0].text)
    assert better.clauses[1].text.startswith("latency ")
    assert better.notes == ()
    same = comparison(results, "Sparse DETR at 0.3 against Deformable DETR")
    assert same.clauses[0].verdict == "same"
    assert same.clauses[0].text.startswith("0.0 AP [0.0, 0.0]")


def test_intervals_of_trained_rows_are_told_to_leave_the_seed_out(results: Path) -> None:
    assert "another seed may move it further" in findings.about(section(results)).basis
    for path in results.glob("quickstart/smoke/cells/*/training.json"):
        path.unlink()
    assert "seed" not in findings.about(section(results)).basis


def test_without_kept_images_the_finding_says_so(results: Path) -> None:
    made = findings.about(section(results))
    assert "Unpaired: per-image results are missing" in made.basis
    for cell in ("deformable", "sparse-0.1", "sparse-0.3"):
        report_fixture.write_images(results, cell, 0.5)
    assert comparison(results, "Sparse DETR at 0.1 against Deformable DETR").notes == ()
    assert "unpaired" in str(comparison(results, "Sparse DETR at 0.5 against Deformable DETR"))


def test_other_images_are_not_paired(results: Path) -> None:
    report_fixture.write_images(results, "deformable", 0.5)
    report_fixture.write_images(results, "sparse-0.1", 0.8, ids=61)
    assert "unpaired: not the same images" in comparison(results, "Sparse DETR at 0.1 against Deformable DETR").notes


def test_figures_of_an_older_record_are_not_paired(results: Path) -> None:
    for cell in ("deformable", "sparse-0.1", "sparse-0.3"):
        report_fixture.write_images(results, cell, 0.5)
    path = next(results.glob("quickstart/smoke/cells/sparse-0.1-*/accuracy.json"))
    path.write_text(path.read_text().replace('"key": "0000"', '"key": "0001"'))
    assert any("unpaired" in note for note in comparison(results, "Sparse DETR at 0.1 against Deformable DETR").notes)


def test_every_verdict_is_of_the_vocabulary(results: Path) -> None:
    for suite in ("quickstart", "table6_keep_ratio"):
        for finding in findings.about(section(results, suite)).comparisons:
            assert {clause.verdict for clause in finding.clauses} <= WORDS
            assert str(finding).endswith(".")


def test_counts_alone_are_compared_too(results: Path) -> None:
    for path in results.glob("quickstart/smoke/cells/*/*.json"):
        if path.name in ("accuracy.json", "latency.json", "training.json"):
            path.unlink()
    found = comparison(results, "Sparse DETR at 0.1 against Deformable DETR")
    assert [clause.verdict for clause in found.clauses] == ["worse"]
    assert found.clauses[0].text == "119.1 against 111.2 GFLOPs, +7.1 %"
    assert findings.about(section(results)).open == 0


def test_rows_trained_for_other_numbers_of_epochs_say_so(results: Path) -> None:
    path = next(results.glob("quickstart/smoke/cells/sparse-0.3-*"))
    report_fixture.write_records(path, "training", {"training": report_fixture.training(40.0, epochs=36)})
    assert "after 36 against 12 epochs" in comparison(results, "Sparse DETR at 0.3 against Deformable DETR").notes


@pytest.mark.parametrize(
    ("began", "note"),
    [
        (
            {"part": "backbone", "source": "random values", "file": None, "sha256": None, "replaced": []},
            "sparse-0.3: its backbone began at random values (init: none)",
        ),
        (
            {"part": "detector", "source": "a file", "file": "w.pth", "sha256": "0123456789", "replaced": ["a.bias"]},
            "sparse-0.3: its detector began with w.pth, sha256 01234567..., its class heads anew",
        ),
        ({"part": "backbone", "source": "https://a/w.pth", "file": "w.pth", "sha256": "01", "replaced": []}, None),
    ],
)
def test_rows_that_began_with_other_weights_say_so(results: Path, began: dict[str, Any], note: str | None) -> None:
    """Published ImageNet weights go without saying."""
    path = next(results.glob("quickstart/smoke/cells/sparse-0.3-*"))
    training = report_fixture.training(40.0, epochs=12) | {"began_with": [began]}
    report_fixture.write_records(path, "training", {"training": training})
    notes = [n for n in comparison(results, "Sparse DETR at 0.3 against Deformable DETR").notes if "began" in n]
    assert notes == ([note] if note else [])


@pytest.mark.parametrize("suite", ["quickstart", "table6_keep_ratio"])
def test_the_span_of_costs_is_told(results: Path, suite: str) -> None:
    told = [finding for finding in findings.about(section(results, suite)).facts if "common" in finding.subject]
    assert len(told) == 1
    assert "62 % of the difference lies in the encoder" in str(told[0])


def test_a_method_is_held_against_its_baseline_under_the_protocol_of_its_table(tmp_path: Path) -> None:
    """DAC-DETR's Figure 3 prints the method first; its table's protocol says more AP, `common` says less."""
    report_fixture.write_shipped(tmp_path, "smoke", ["dac_figure3"])
    for id_, figures in (
        ("deformable", {"dac": 27.7, "common": 33.5}),
        ("deformable-dac", {"dac": 33.5, "common": 27.7}),
    ):
        (path,) = tmp_path.glob(f"*/smoke/cells/{id_}-????????")
        records = {rule: {**report_fixture.accuracy(ap, 200), "protocol": rule} for rule, ap in figures.items()}
        report_fixture.write_records(path, "accuracy", records)
    found = section(tmp_path, "dac_figure3")
    assert found.entries[0].id == "deformable-dac"
    assert pairs_of(found) == [("deformable-dac", "deformable")]
    (made,) = findings.about(found).comparisons
    assert made.subject == "DAC-DETR against Deformable DETR"
    assert made.clauses[0].text.startswith("+5.8 AP")
    assert "protocol dac" in findings.about(found).basis


def test_a_verdict_of_one_training_says_that_it_is_of_these_weights(results: Path) -> None:
    made = findings.about(section(results)).comparisons
    ap = [clause for finding in made for clause in finding.clauses if " AP " in clause.text]
    assert len(ap) == 3
    assert all(str(clause).endswith(f"{clause.verdict} on these weights") for clause in ap)
    assert not [clause for finding in made for clause in finding.clauses if clause not in ap and clause.scope]
