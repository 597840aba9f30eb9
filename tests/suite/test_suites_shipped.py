"""The suites that come along: every published row of their table is there, and every cell can be built and run."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from shipped_suites import cells, load

from detrbench import models, published
from detrbench.report import labels
from detrbench.suite import loading as suites
from detrbench.weights import catalogue

NAMES = suites.names()
# Suites whose published table is not theirs row by row: the curves of a figure, and rows of another table.
SOME_ROWS = {"dac_figure3": "one row for each of twelve epochs and three scores", "sparse_ablations": "Table 1's bases"}


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_is_sound(name: str) -> None:
    loaded = load(name)
    assert loaded.suite.name == name
    assert all(cells(name, scale) for scale in loaded.suite.scales)
    rows = cells(name, next(iter(loaded.suite.scales)))
    assert {cell.model for cell in rows if cell.is_ours} <= set(models.names())


def test_they_are_listed_in_the_order_of_their_numbers() -> None:
    tables = [name for name in NAMES if name.startswith("focus_table")]
    assert tables == sorted(tables, key=lambda name: int(name.removeprefix("focus_table").partition("_")[0]))


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).suite.published and name not in SOME_ROWS])
def test_no_published_row_is_dropped_and_none_stands_twice(name: str) -> None:
    table = published.load(str(load(name).suite.published))
    found = [table.select(cell.row).index for cell in cells(name, "paper") if cell.row]
    assert sorted(found) == list(range(len(table.rows)))


@pytest.mark.parametrize(
    "name", [name for name in NAMES if len(load(name).suite.scales) > 1 or load(name).suite.published]
)
def test_a_table_has_three_scales_that_differ(name: str) -> None:
    """And no scale makes two rows equal that differ at the paper's."""
    for scale in ("paper", "mini", "smoke"):
        built = [cell for cell in cells(name, scale) if cell.model]
        made = {cell.id: _made(cell) for cell in built}
        same = {(a, b) for a in made for b in made if a < b and made[a] == made[b]}
        assert not {pair for pair in same if not _differ_in_backbone_alone(name, *pair)}, scale


def _made(cell: suites.Cell) -> tuple[Any, ...]:
    trained = cell.weights_of or cell
    return models.resolve(str(cell.model), cell.options), trained.options, trained.settings.resolved()


def _differ_in_backbone_alone(name: str, *pair: str) -> bool:
    """The tiny backbone of the smoke scale, which begins at random, stands for all of them."""
    at_paper = {cell.id: cell for cell in cells(name, "paper")}
    rows = [at_paper[id_] for id_ in pair]
    backbones = {(models.resolve(str(c.model), c.options).parts["backbone"], c.settings.init) for c in rows}
    return len(backbones) == 2


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).suite.published])
def test_a_row_whose_figure_released_weights_have_names_them(name: str) -> None:
    """The very detector, and the AP that its weights are published with."""
    table = published.load(str(load(name).suite.published))
    for cell in cells(name, "paper"):
        if cell.model and cell.row and not cell.official and not cell.weights_of:
            ap = table.select(cell.row).values.get("AP")
            assert not [entry.name for entry in _released(cell) if ap in entry.ap.values()], cell.id


def _released(cell: suites.Cell) -> list[catalogue.Entry]:
    """Weights of the cell's detector."""
    detector = models.resolve(str(cell.model), cell.options)
    return [entry for entry, trained in _detectors() if trained == (detector.parts, detector.options)]


@functools.cache
def _detectors() -> list[tuple[catalogue.Entry, tuple[Any, Any]]]:
    """Released weights with parts and options of what was trained."""
    released = [entry for entry in catalogue.entries().values() if entry.model]
    found = [models.resolve(str(entry.model), entry.options) for entry in released]
    return [(entry, (spec.parts, spec.options)) for entry, spec in zip(released, found, strict=True)]


def test_a_cascade_has_the_mean_that_its_row_says() -> None:
    for name in ("focus_table6_keep_ratio", "focus_table7_cascade", "focus_figure7_ap_gflops"):
        for cell in cells(name, "paper"):
            if cell.row and "keep_ratios" in cell.options:
                ratios: list[float] = cell.options["keep_ratios"]
                assert sum(ratios) / len(ratios) == pytest.approx(cell.row["keep_ratio"]), cell.id
                if name == "focus_table7_cascade":
                    assert published.load("focus_detr/table7").select(cell.row).values["layer_ratios"] == ratios


@pytest.mark.full
def test_the_tokens_of_each_scale_are_as_the_suite_says() -> None:
    """Lite DETR's Table 2 has no row to measure, but its description says what our detectors have."""
    import torch

    from detrbench.measure import protocols

    described = str(load("lite_table2").suite.description)
    with torch.device("meta"):
        detector = models.create("lite_dino_tiny")

    @torch.no_grad()
    def shares(height: int, width: int) -> list[float]:
        images = torch.zeros(1, 3, height, width, device="meta")
        counts = [h * w for h, w in detector.neck(detector.backbone(images), None, images.shape[-2:]).sizes]
        return [100 * count / sum(counts) for count in counts]

    sizes = protocols.get("complexity").inputs.sizes()
    weighted = [[weight / sum(sizes.values()) * share for share in shares(*size)] for size, weight in sizes.items()]
    for found in (shares(512, 512), [sum(level) for level in zip(*weighted, strict=True)]):
        finer, last = [f"{share:.2f}" for share in found[:-1]], f"{found[-1]:.2f}"
        assert f"{', '.join(finer)} and {last} %" in described


@pytest.fixture(scope="module")
def tried() -> list[tuple[Any, Any]]:
    """Parts and options of detectors that ran already: many suites have the same."""
    return []


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in NAMES if "smoke" in load(name).suite.scales])
def test_every_smoke_cell_runs_forward_and_backward(name: str, tried: list[tuple[Any, Any]]) -> None:
    import torch

    for cell in cells(name, "smoke"):
        if cell.model is None:
            continue
        spec = models.resolve(cell.model, {"num_classes": 6, **cell.options})
        if (spec.parts, spec.options) in tried:
            continue
        tried.append((spec.parts, spec.options))
        torch.manual_seed(0)
        detector = models.create(cell.model, **{"num_classes": 6, **cell.options})
        images = torch.randn(2, 3, *cell.settings.eval_size)
        boxes = torch.tensor([[0.4, 0.4, 0.3, 0.3], [0.7, 0.6, 0.2, 0.4]])
        targets: Any = [{"labels": torch.tensor([1, 4]), "boxes": boxes}] * 2
        with torch.no_grad():
            out = detector.eval()(images)
        assert out.pred_boxes.shape == (2, min(spec.options["num_queries"], out.pred_boxes.shape[1]), 4), cell.id
        assert out.pred_logits.isfinite().all(), cell.id
        losses = detector.criterion(detector.train()(images, targets=targets), targets)
        total = detector.criterion.total(losses)
        total.backward()
        assert total.isfinite(), cell.id


PAPERS = {
    "Sparse DETR": "sparse_detr",
    "Focus-DETR": "focus_detr",
    "Lite DETR": "lite_detr",
    "DAC-DETR": "dac_detr",
    "MS-DETR": "ms_detr",
}
COVERAGE = Path(__file__).parents[2] / "docs" / "coverage.md"


def coverage(paper: str) -> dict[str, tuple[str, str]]:
    """What docs/coverage.md says of a paper's tables: the suite, and a remark."""
    part = COVERAGE.read_text().partition(f"\n## {paper}\n")[2].partition("\n## ")[0]
    lines = [[cell.strip(" `") for cell in line.split("|")[1:4]] for line in part.splitlines() if line.startswith("|")]
    return {table: (suite, remark) for table, suite, remark in lines[2:]}  # below the heading


@pytest.fixture(scope="module")
def suites_of() -> dict[str | None, list[str]]:
    """Published table -> the suites that show it."""
    found: dict[str | None, list[str]] = {}
    for name in NAMES:
        found.setdefault(load(name).suite.published, []).append(name)
    return found


@pytest.mark.parametrize("paper", PAPERS)
def test_every_table_of_a_paper_has_its_suite_or_a_reason(paper: str, suites_of: dict[str | None, list[str]]) -> None:
    said = coverage(paper)
    for suite, remark in said.values():
        assert suite in NAMES or (remark and not suite)
    for table in published.tables_of(PAPERS[paper]).values():
        own = suites_of.get(table.reference, [])
        suite, _ = said[labels.table_name(table.reference)]
        assert suite in own if own else not suite, table.reference


# Rows whose paper prints another AP than the page from which the same authors' weights come.
PRINTED_OTHERWISE = {
    ("dac_table2", "dac-align-24"): "59.2 in the paper, 59.3 in the README",
    ("lite_table3", "deformable"): "46.8 quoted of the official code, 46.9 in its README",
    ("lite_table6", "deformable-4scale"): "46.8 quoted of the official code, 46.9 in its README",
    ("focus_table10_convergence", "focus-swin-t-12"): "49.9 in the paper, 50.0 in the README",
    ("focus_table10_convergence", "focus-swin-t-24"): "51.9 in the paper, 51.2 in the README",
}
AT_PAPER = {name: cells(name, "paper") for name in NAMES if "paper" in load(name).suite.scales}
OFFICIAL = [(name, cell) for name, found in AT_PAPER.items() for cell in found if cell.official]


@pytest.mark.parametrize(("name", "cell"), OFFICIAL, ids=[f"{name}/{cell.id}" for name, cell in OFFICIAL])
def test_official_weights_are_those_of_the_published_row(name: str, cell: suites.Cell) -> None:
    entry = catalogue.get(str(cell.official))
    reference = load(name).suite.published
    printed = published.load(reference).select(cell.row).values.get("AP") if reference and cell.row else None
    if (name, cell.id) in PRINTED_OTHERWISE:
        assert printed not in entry.ap.values()
    else:
        assert printed is None or printed in entry.ap.values()
    classes = models.resolve(str(entry.model), entry.options).options["num_classes"]
    assert cell.settings.labels == {80: "contiguous", 91: "category_id"}[classes], "labels would be shifted in silence"


def test_enough_rows_have_official_weights() -> None:
    assert len(OFFICIAL) > 70
    assert {
        ("focus_table6_keep_ratio", cell.official) for name, cell in OFFICIAL if name == "focus_table6_keep_ratio"
    } == {
        ("focus_table6_keep_ratio", weights)
        for weights in (*(f"sparse_detr/r50_rho0.{i}" for i in range(1, 6)), "focus_detr/r50_36ep")
    }


def test_the_papers_own_scales_all_say_in_what_they_differ() -> None:
    """A row may take another one than its suite: a key that one of them leaves open would keep the suite's value."""
    own = [scale for scale in suites.shared_scales().values() if scale.data == "coco"]
    assert len(own) == 25
    assert len({frozenset(scale.model_fields_set - {"like", "model"}) for scale in own}) == 1


@pytest.mark.parametrize("name", [name for name in AT_PAPER if "accuracy" in load(name).suite.measure])
def test_labels_at_the_papers_scale_are_as_many_as_the_detector_has_classes(name: str) -> None:
    for cell in AT_PAPER[name]:
        if cell.model and cell.settings.data == "coco":
            classes = models.resolve(cell.model, cell.options).options["num_classes"]
            assert cell.settings.labels == {80: "contiguous", 91: "category_id"}[classes], cell.id
