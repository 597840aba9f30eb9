"""Findings: which rows are held against each other, on what evidence, and in which words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import report_fixture

from detrbench import yaml12
from detrbench.report import findings, pairs, sections
from detrbench.report.sections import Section
from detrbench.results.store import ResultsStore

WORDS = {"better", "worse", "same", "unclear", "undecided"}


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
    assert pairs_of(section(results, "focus_table6_keep_ratio")) == expected


def test_methods_are_paired_at_equal_keep_ratios_on_equal_bases(results: Path) -> None:
    for path in results.glob("focus_table6*/smoke/cells/*/cell.yaml"):
        records = {"common": report_fixture.complexity(100.0, "common")}
        report_fixture.write_records(path.parent, "complexity", records)
    found = pairs_of(section(results, "focus_table6_keep_ratio"))
    assert ("focus-0.3", "sparse-dino-0.3") in found
    assert not [pair for pair in found if {"sparse-0.3"} & set(pair) and any("o" in name for name in pair)]
    assert len(found) == len(set(found)) == 5 + 3 * 4


def test_a_row_is_held_against_the_one_whose_weights_it_has_and_not_against_the_baseline(results: Path) -> None:
    path = next(results.glob("quickstart/smoke/cells/sparse-0.5-*/cell.yaml"))
    path.write_text(yaml12.dump({**yaml12.load(path).value, "weights_of": "sparse-0.1"}))
    expected = [("sparse-0.5", "sparse-0.1"), ("sparse-0.1", "deformable"), ("sparse-0.3", "deformable")]
    assert pairs_of(section(results)) == expected


def test_rows_with_other_parts_are_other_methods(results: Path) -> None:
    path = next(results.glob("quickstart/smoke/cells/sparse-0.5-*/cell.yaml"))
    cell = yaml12.load(path).value
    cell["options"] |= {"encoder": "sparse_objectness", "keep_ratio": 0.3}
    cell["complexity_options"] = cell["options"]
    path.write_text(yaml12.dump(cell))
    methods = {entry.id: entry.identity.method for entry in section(results).entries}
    assert methods["sparse-0.3"] == methods["sparse-0.1"] == "Sparse DETR"
    assert methods["sparse-0.5"] == "Sparse DETR (objectness)"
    assert ("sparse-0.5", "sparse-0.3") in pairs_of(section(results))


def with_given_weights(results: Path) -> None:
    """All AP is of weights that came as files."""
    for path in results.glob("quickstart/smoke/cells/*/accuracy.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "weights": "checkpoint"}))


def test_ap_is_paired_over_images_where_they_are_kept(results: Path) -> None:
    with_given_weights(results)
    for cell, skill in (("deformable", 0.5), ("sparse-0.1", 0.8), ("sparse-0.3", 0.5)):
        report_fixture.write_images(results, cell, skill)
    better = comparison(results, "Sparse DETR at 0.1 against Deformable DETR")
    assert better.clauses[0].verdict == "better"
    assert re.match(r"\+\d+\.\d AP \[\d+\.\d, \d+\.\d\] at [\d.]+ against [\d.]+ GFLOPs$", better.clauses[0].text)
    assert better.clauses[1].text.startswith("latency ")
    assert better.notes == (f"detectable {better.clauses[0].detectable:.1f} AP",)
    same = comparison(results, "Sparse DETR at 0.3 against Deformable DETR")
    assert same.clauses[0].verdict == "same"
    assert same.clauses[0].text.startswith("0.0 AP [0.0, 0.0]")


def test_of_rows_that_were_trained_once_nothing_is_decided(results: Path) -> None:
    found = findings.about(section(results))
    assert "another seed may turn the difference round" in found.basis
    for finding in found.comparisons:
        (ap,) = [clause for clause in finding.clauses if " AP " in clause.text]
        assert str(ap).endswith("undecided (one seed)")
        assert ap.detectable is None
        assert not [clause for clause in finding.clauses if clause is not ap and clause.scope]


def test_a_verdict_on_given_weights_is_of_these_weights(results: Path) -> None:
    with_given_weights(results)
    found = findings.about(section(results))
    for finding in found.comparisons:
        assert str(finding.clauses[0]).endswith(f"{finding.clauses[0].verdict} on these weights")
    assert "not of the methods behind them" in found.basis
    assert "seed" not in found.basis


SEEDS = {"deformable": (0.5, 0.52, 0.48), "sparse-0.1": (0.8, 0.78, 0.82), "sparse-0.3": (0.5, 0.49, 0.51)}


def with_three_seeds(results: Path) -> None:
    """Three rows, each trained three times: AP 100 times the skill."""
    for cell, skills in SEEDS.items():
        (path,) = results.glob(f"quickstart/smoke/cells/{cell}-0000abcd")
        first = {"common": report_fixture.accuracy(100 * skills[0], 200)}
        report_fixture.write_records(path, "accuracy", first)
        report_fixture.write_images(results, cell, skills[0])
        report_fixture.write_seeds(results, cell, [(100 * skill, skill) for skill in skills[1:]])


def test_over_several_seeds_the_verdict_is_on_the_method(results: Path) -> None:
    with_three_seeds(results)
    found = findings.about(section(results))
    better, other, once = found.comparisons
    assert better.subject == "Sparse DETR at 0.1 against Deformable DETR"
    assert better.clauses[0].text.startswith("+30.0 AP [2")
    assert str(better.clauses[0]).endswith("GFLOPs: better")
    assert "3 against 3 seeds" in better.notes
    assert other.clauses[0].text.startswith("0.0 AP [")
    assert str(other.clauses[0]).endswith("GFLOPs: unclear")
    assert f"detectable {other.clauses[0].detectable:.1f} AP" in other.notes
    assert str(once.clauses[0]).endswith("undecided (one seed)")  # one side was trained once
    assert "Other verdicts on AP are on methods" in found.basis
    assert "2 comparisons are judged together (Holm)" in found.basis


def put_seeds(results: Path, cell: str, found: list[float]) -> None:
    """Trainings of a cell with so much AP; all of them are equal on single images."""
    (path,) = results.glob(f"quickstart/smoke/cells/{cell}-0000abcd")
    report_fixture.write_records(path, "accuracy", {"common": report_fixture.accuracy(found[0], 200)})
    report_fixture.write_images(results, cell, 0.5)
    report_fixture.write_seeds(results, cell, [(ap, 0.5) for ap in found[1:]])


def test_comparisons_of_a_table_are_judged_together(results: Path) -> None:
    """With p = 0.037, a difference is better among one comparison and unclear among two."""
    subject = "Sparse DETR at 0.3 against Deformable DETR"
    put_seeds(results, "deformable", [50.0, 50.4, 49.4])
    put_seeds(results, "sparse-0.3", [50.78, 51.08, 51.38])
    alone = comparison(results, subject).clauses[0]
    put_seeds(results, "sparse-0.1", [50.78, 51.08, 51.38])
    among = comparison(results, subject).clauses[0]
    assert alone.text == among.text
    assert (alone.verdict, among.verdict) == ("better", "unclear")
    assert alone.detectable is not None
    assert among.detectable is not None
    assert alone.detectable < among.detectable


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
    path.write_text(path.read_text().replace(f'"key": "{path.parent.name}"', '"key": "0001"'))
    assert any("unpaired" in note for note in comparison(results, "Sparse DETR at 0.1 against Deformable DETR").notes)


def test_every_verdict_is_of_the_vocabulary(results: Path) -> None:
    for suite in ("quickstart", "focus_table6_keep_ratio"):
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


@pytest.mark.parametrize("suite", ["quickstart", "focus_table6_keep_ratio"])
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
