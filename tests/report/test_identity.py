"""One detector has one name, one colour and one shape, whatever its table calls it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import report_fixture

from detrbench import models
from detrbench.report import identity, sections, svg
from detrbench.report.identity import METHODS, OTHER, SHAPES, STAR, Identity, of_detector, of_printed
from detrbench.report.sections import Section
from detrbench.results.store import ResultsStore


def known(model: str, **options: object) -> Identity:
    found = of_detector(model, options)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("model", "options", "name", "family", "marker"),
    [
        ("deformable_detr_r50", {}, "Deformable DETR", "Deformable DETR", STAR),
        ("efficient_detr_r50", {}, "Two-stage Deformable DETR", "Deformable DETR", STAR),
        ("dino_r50", {}, "DINO", "DINO", STAR),
        ("dino_3scale_r50", {}, "DINO, 3 scales", "DINO", STAR),
        ("h_detr_r50", {}, "H-DETR", "Deformable DETR", STAR),
        ("sparse_dino_r50", {}, "Sparse DETR on DINO", "Sparse DETR", "s"),
        ("sparse_detr_r50", {"encoder": "sparse_objectness"}, "Sparse DETR (objectness) on two-stage Deformable DETR",
         "Sparse DETR", "o"),
        ("focus_detr_r50", {}, "Focus-DETR on DINO", "Focus-DETR", "s"),
        ("focus_dn_deformable_detr_r50", {}, "Focus-DETR on DN-Deformable-DETR", "Focus-DETR", "v"),
        ("salience_detr_r50", {}, "Salience-DETR on DINO", "Salience-DETR", "s"),
        ("h_detr_r50", {"encoder": "lite"}, "Lite DETR on H-DETR", "Lite DETR", "^"),
        ("rt_detr_r50vd", {}, "RT-DETR", "RT-DETR", STAR),
        ("rt_detr_r50vd", {"num_levels": 4}, "RT-DETR, 4 scales", "RT-DETR", STAR),
        ("dino_r50", {"encoder": "hybrid"}, "RT-DETR on DINO", "RT-DETR", "s"),
        ("rt_detr_r50", {"encoder": "sparse"}, "Sparse DETR on RT-DETR", "Sparse DETR", "X"),
        ("dac_detr_r50", {}, "DAC-DETR on Deformable-DETR++", "DAC-DETR", "D"),
        ("ms_detr_r50", {}, "MS-DETR on Deformable-DETR++", "Deformable DETR", "D"),
        ("ms_deformable_detr_r50", {}, "MS-DETR on two-stage Deformable DETR", "Deformable DETR", "o"),
        ("dac_detr_r50", {"encoder": "focus"}, "Focus-DETR + DAC-DETR on Deformable-DETR++", "Focus-DETR", "D"),
    ],
)  # fmt: skip
def test_it_follows_from_parts_and_options(
    model: str, options: dict[str, object], name: str, family: str, marker: str
) -> None:
    found = known(model, **options)
    assert (found.name, found.family, found.marker) == (name, family, marker)


def test_a_ratio_for_each_layer_counts_as_their_mean() -> None:
    assert known("focus_detr_r50", keep_ratios=[0.5, 0.4, 0.3, 0.3, 0.2, 0.1]).kept == 0.3
    assert known("sparse_detr_r50", keep_ratio=0.4).kept == 0.4
    assert known("dino_r50").kept is None


def test_shares_of_levels_count_by_their_tokens() -> None:
    """Of 64, 16, 4 and 1 tokens a half, all, all and all, on average over the layers three quarters of these."""
    levels, layers = [0.5, 1.0, 1.0, 1.0], [1.0, 1.0, 0.75, 0.75, 0.5, 0.5]
    found = known("salience_detr_r50", level_ratios=levels, layer_ratios=layers)
    assert found.kept == round((32 + 16 + 4 + 1) / 85 * 0.75, 4)


def test_every_variant_has_a_method_with_a_colour() -> None:
    for model in models.names():
        assert known(model).family != OTHER, model


def test_what_is_not_known_here_goes_by_its_printed_name() -> None:
    assert of_detector("nobody_knows_it", {}) is None
    for name, family in (("DINO (mixed) + Sparse DETR", "Sparse DETR"), ("Lite-DINO H2L2-(2+1)x3", "Lite DETR"),
                         ("DAB-Deformable-DETR", OTHER), ("Salience DETR", "Salience-DETR"),
                         ("DAC-DETR + Align", "DAC-DETR")):  # fmt: skip
        assert of_printed(name, {}).family == family, name


def rows(root: Path, suite: str) -> Section:
    return sections.read(ResultsStore(report_fixture.write_shipped(root, "paper", [suite])), [suite])[0]


def test_lite_detr_is_not_called_dino_in_its_own_table(tmp_path: Path) -> None:
    """Table 5 of Lite DETR prints DINO in every row."""
    found = rows(tmp_path, "lite_table5")
    assert {entry.label for entry in found.entries} == {"DINO"}
    lite = [entry.identity for entry in found.entries if "hl" in entry.id]
    assert len(lite) == 5
    assert {(one.name, one.colour) for one in lite} == {("Lite DETR on DINO", METHODS.index("Lite DETR"))}


def test_only_a_declared_sweep_is_joined(tmp_path: Path) -> None:
    swept = rows(tmp_path, "focus_table6_keep_ratio")
    curves: dict[str, list[float | None]] = {}
    for entry in swept.entries:
        curves.setdefault(swept.curve(entry), []).append(swept.swept(entry))
    assert list(curves.values()) == [[0.1, 0.2, 0.3, 0.4, 0.5]] * 3  # Focus-DETR's lists by their means
    assert all(curves)
    for undeclared in ("lite_table5", "deployment"):  # the second has rows of two keep ratios
        alone = rows(tmp_path, undeclared)
        assert {alone.curve(entry) for entry in alone.entries} == {""}


def test_a_row_of_ours_is_on_no_curve_of_a_papers_table(tmp_path: Path) -> None:
    """Table 7: the paper's falling ratios on one, each constant ratio of the same mean on another."""
    found = rows(tmp_path, "focus_table7_cascade")
    curves: dict[str, set[str]] = {}
    for entry in found.entries:
        curves.setdefault(found.curve(entry), set()).add(entry.id.partition("-")[0])
    assert list(curves.values()) == [{"cascade"}, {"constant"}]


def test_a_row_with_another_option_is_on_another_curve(tmp_path: Path) -> None:
    found = rows(tmp_path, "sparse_ablations")
    sizes: dict[str, int] = {}
    for entry in found.entries:
        sizes[found.curve(entry)] = sizes.get(found.curve(entry), 0) + 1
    assert "" not in {found.curve(e) for e in found.entries if e.cell}
    assert len([size for curve, size in sizes.items() if curve and size == 5]) >= 3


# Colours

DARK = re.compile(r"prefers-color-scheme: dark\) \{(.*?)\n\}", re.DOTALL)


def defined(dark: bool, names: str) -> list[tuple[float, ...]]:
    """The colours, 0..1, that the style sheet gives to variables of these names (a regular expression)."""
    style = svg.STYLE_SHEET.read_text()
    found = DARK.search(style)
    assert found
    text = found[1] if dark else style[: found.start()]
    texts = re.findall(rf"--(?:{names}): #([0-9a-f]{{6}})", text)
    return [tuple(int(value[i : i + 2], 16) / 255 for i in (0, 2, 4)) for value in texts]


def colours(dark: bool, kind: str) -> list[tuple[float, ...]]:
    return defined(dark, rf"{kind}-\d+")


def papers(dark: bool) -> list[tuple[float, ...]]:
    return defined(dark, "paper|raised")


def linear(rgb: tuple[float, ...]) -> list[float]:
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2.2."""
    light = [sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear(rgb), strict=True)) for rgb in (one, other)]
    return (max(light) + 0.05) / (min(light) + 0.05)


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB: protan, deutan, tritan.
SEEN = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
)


def oklab(rgb: list[float]) -> list[float]:
    """Linear RGB in a space where distances are as they are seen (Ottosson 2020)."""
    lms = [sum(w * max(c, 0.0) for w, c in zip(row, rgb, strict=True)) ** (1 / 3) for row in (
        (0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005))]  # fmt: skip
    return [sum(w * c for w, c in zip(row, lms, strict=True)) for row in (
        (0.2104542553, 0.7936177850, -0.0040720468), (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660))]  # fmt: skip


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_colours_stand_out_and_differ_for_every_kind_of_sight(dark: bool) -> None:
    series, parts = colours(dark, "series"), colours(dark, "part")
    assert (len(series), len(parts), len(papers(dark))) == (len(METHODS), svg.PARTS, 2)
    for colour in [*series, *parts]:
        assert min(contrast(colour, paper) for paper in papers(dark)) >= 3
    for seen in SEEN:
        shown = [oklab([sum(w * c for w, c in zip(row, linear(rgb), strict=True)) for row in seen]) for rgb in series]
        distances = [
            sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
            for i, one in enumerate(shown)
            for other in shown[:i]
        ]
        assert min(distances) > 0.09  # two of the same lightness that many people confuse are 0.02 apart


def test_drawings_have_the_colours_of_the_page() -> None:
    drawn = [svg._VARIABLES[svg.series_colour(number)] for number in range(len(METHODS))]
    assert drawn == [f"--series-{number + 1}" for number in range(len(METHODS))]


def test_bases_have_shapes_of_their_own() -> None:
    assert len({*SHAPES.values(), identity.STAR}) == len(SHAPES) + 1
