"""Suites: expansion into cells, and the position of every mistake."""

from __future__ import annotations

import re
from typing import Any

import pytest

from detrbench import yaml12
from detrbench.errors import SuiteError, UsageError
from detrbench.run.keys import folder_name
from detrbench.suite import loading as suites

GOOD = """\
name: demo
title: A demonstration
published: sparse_detr/table1
defaults: {backbone: resnet50}
variants:
  - id: "sparse-{keep_ratio}"
    model: sparse_detr_r50
    matrix: {keep_ratio: [0.1, 0.3]}
    row: {model: Sparse DETR, backbone: R50}
    protocols: [sparse_table1, paper_top100]
  - id: later
    model: detector_of_the_future
    options: {whatever: 1}
  - {id: detr, model: null, published_only: true, row: {model: DETR-DC5}}
scales:
  paper: {data: coco, epochs: 50}
  smoke:
    {data: shapes, num_train: 8, num_val: 4, image_size: 64, epochs: 1, lr: 1e-3, model: {backbone: tiny}}
"""


def load(text: str) -> suites.LoadedSuite:
    return suites.read(yaml12.parse(text, "demo.yaml"))


def cell(loaded: suites.LoadedSuite, scale: str, id_: str, **overrides: Any) -> suites.Cell:
    return {c.id: c for c in loaded.cells(scale, overrides)}[id_]


def test_a_matrix_gives_a_cell_for_each_combination() -> None:
    loaded = load(GOOD)
    cells = loaded.cells("paper")
    assert [c.id for c in cells] == ["sparse-0.1", "sparse-0.3", "later", "detr"]
    assert [c.index for c in cells] == [0, 1, 2, 3]
    two = GOOD.replace("[0.1, 0.3]}", "[0.1, 0.3], num_queries: [100, 300]}").replace(
        '"sparse-{keep_ratio}"', '"s-{keep_ratio}-{num_queries}"'
    )
    assert [c.id for c in load(two).cells("paper")][:4] == ["s-0.1-100", "s-0.1-300", "s-0.3-100", "s-0.3-300"]


def test_a_cell_resolves_options_rows_and_protocols() -> None:
    found = cell(load(GOOD), "smoke", "sparse-0.3")
    assert found.options == {"backbone": "tiny", "keep_ratio": 0.3}
    assert found.complexity_options == {"backbone": "resnet50", "keep_ratio": 0.3}
    assert found.row == {"model": "Sparse DETR", "backbone": "R50", "keep_ratio": 0.3}
    assert found.protocols_of("complexity") == ["common", "sparse_table1", "evaluated"]
    assert found.protocols_of("accuracy") == ["common", "paper_top100"]
    assert found.protocols_of("latency") == ["common"]
    assert found.settings.recipe.lr == 1e-3
    assert found.settings.data_spec.num_train == 8


def test_templates_give_values_their_type() -> None:
    text = GOOD.replace(
        "matrix: {keep_ratio: [0.1, 0.3]}", "matrix: {keep_ratio: [0.1]}\n    options: {keep_ratio: 0.2}"
    )
    assert cell(load(text), "paper", "sparse-0.1").options["keep_ratio"] == 0.2
    text = GOOD.replace("options: {whatever: 1}", 'matrix: {r: [[1, 2]]}\n    options: {ratios: "{r}", text: "r={r}"}')
    options = cell(load(text), "paper", "later").options
    assert options["ratios"] == [1, 2]
    assert options["text"] == "r=[1, 2]"


def test_a_variant_can_change_a_scale() -> None:
    text = GOOD.replace("options: {whatever: 1}", "scales: {paper: {epochs: 36}}")
    loaded = load(text)
    assert cell(loaded, "paper", "later").settings.epochs == 36
    assert cell(loaded, "paper", "sparse-0.1").settings.epochs == 50
    assert cell(loaded, "smoke", "later").settings.epochs == 1


def test_overrides_change_scales_and_the_options_of_detectors_that_take_them() -> None:
    overrides = {"epochs": 3, "model.keep_ratio": 0.2, "limit": 5}
    loaded = load(GOOD)
    changed = {c.id: c for c in loaded.cells("smoke", overrides)}
    assert changed["sparse-0.1"].settings.epochs == 3
    assert changed["sparse-0.1"].settings.data_spec.limit == 5
    assert changed["sparse-0.1"].options["keep_ratio"] == changed["sparse-0.1"].complexity_options["keep_ratio"] == 0.2
    assert changed["detr"].options == {"backbone": "tiny"}
    assert loaded.cells("smoke", {"epochs": 3, "keep_ratio": 0.2, "limit": 5}) == list(changed.values())


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        ({"epocs": 1}, "epocs: unknown key"),
        ({"epochs": "many"}, "expected a whole number"),
        ({"epochs": 1.5}, "expected a whole number"),
        ({"model.keep_rato": 1}, "unknown model option 'keep_rato'"),
        ({"model": {}}, "unknown key"),
        ({"shortest": 8}, "shortest: expected at least 32, got 8"),
        ({"longest": 48}, "shortest: expected at most longest, which is 48, got 64"),
        ({"train_scales": [96]}, "train_scales: expected at most longest, which is 64, got 96"),
    ],
)
def test_wrong_overrides(overrides: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(GOOD).cells("smoke", overrides)
    assert what in caught.value.message


def test_the_folder_name_changes_with_every_setting_and_with_nothing_else() -> None:
    loaded = load(GOOD)
    base = folder_name(cell(loaded, "smoke", "sparse-0.1"))
    assert re.fullmatch(r"sparse-0\.1-[0-9a-f]{8}", base)
    assert base == folder_name(cell(load(GOOD), "smoke", "sparse-0.1"))
    others = [folder_name(cell(loaded, "smoke", "sparse-0.1", **change)) for change in ({"lr": 1e-2}, {"limit": 3})]
    assert len({base, *others, folder_name(cell(loaded, "paper", "sparse-0.1"))}) == 4


def test_a_cell_describes_itself_in_plain_values() -> None:
    described = cell(load(GOOD), "smoke", "sparse-0.3").describe()
    assert described["suite"] == "demo"
    assert described["protocols"] == ["sparse_table1", "paper_top100"]
    assert described["resolved"]["data"] == "shapes"
    assert described["resolved"]["epochs"] == 1


# 480, 512, ..., 800 times 192 / 800
QUARTER = [115, 123, 131, 138, 146, 154, 161, 169, 177, 184, 192]


@pytest.mark.parametrize(
    ("scale", "settings", "size", "scales", "crop"),
    [
        ("paper", {}, [800, 1333], list(range(480, 801, 32)), True),
        ("paper", {"shortest": 192, "longest": 256}, [192, 256], QUARTER, True),
        ("paper", {"train_scales": [640], "crop": False}, [800, 1333], [640], False),
        ("smoke", {}, [64, 64], [64], False),
        ("smoke", {"shortest": 48}, [48, 64], [48], False),
    ],
)
def test_a_cell_says_at_which_sizes_it_trains(
    scale: str, settings: dict[str, Any], size: list[int], scales: list[int], crop: bool
) -> None:
    resolved = cell(load(GOOD), scale, "sparse-0.3", **settings).describe()["resolved"]
    assert (resolved["eval_size"], resolved["train_scales"], resolved["crop"]) == (size, scales, crop)


@pytest.mark.parametrize(
    ("old", "new", "where", "what", "hint"),
    [
        ("title: A", "titel: A", "2:1", "titel: unknown key", "did you mean 'title'"),
        ("title: A demonstration\n", "", "1:1", "title: expected this key, got nothing", None),
        ("epochs: 50", "epochs: fifty", "16:23", 'scales.paper.epochs: expected a whole number, got "fifty"', None),
        ("epochs: 50", "epoch: 50", "16:23", "scales.paper.epoch: unknown key", "did you mean 'epochs'"),
        ("epochs: 50", "lr: no", "16:23", "scales.paper.lr: expected a number", None),
        ("data: coco", "data: cocoa", "16:11", "expected 'coco' or 'shapes'", None),
        ("image_size: 64", "image_size: 5", "18:46", "image_size: expected an integer of at least 32", None),
        ("epochs: 50", "shortest: 16", "16:23", "shortest: expected at least 32, got 16", None),
        ("epochs: 50", "longest: 99999", "16:23", "longest: expected at most 16384, got 99999", None),
        ("epochs: 50", "shortest: 1400", "16:23", "shortest: expected at most longest, which is 1333, got 1400", None),
        ("epochs: 50", "longest: 700", "16:3", "shortest: expected at most longest, which is 700, got 800", None),
        ("epochs: 50", "train_scales: []", "16:23", "train_scales: expected at least 1, got []", None),
        ("epochs: 50", "train_scales: [480, 20]", "16:43", "train_scales[1]: expected at least 32, got 20", None),
        ("epochs: 50", "train_scales: [1400]", "16:23", "expected at most longest, which is 1333, got 1400", None),
        ("epochs: 50", "crop: 1", "16:23", "crop: expected true or false, got 1", None),
        ("    model: sparse_detr_r50", "    modle: x", "7:5", "modle: unknown key", "did you mean 'model'"),
        ("[0.1, 0.3]", "0.1", "8:14", "matrix.keep_ratio: expected a list", None),
        ('"sparse-{keep_ratio}"', "sparse", "5:1", "expected distinct ids, got 'sparse' twice", "{keep_ratio}"),
        ('"sparse-{keep_ratio}"', '"s-{ratio}"', "6:", "names 'ratio'", "keep_ratio"),
        ("matrix: {keep_ratio:", "matrix: {keep_rato:", "6:5", "names 'keep_ratio'", None),
        ("[0.1, 0.3]", "[few]", "9:5", "keep_ratio: few", None),
        ("model: Sparse DETR,", "model: Spare DETR,", "9:5", "fits 0 rows", None),
        ("table1", "table99", "6:", "unknown table", None),
        ("[sparse_table1,", "[sparse_tabel1,", "6:", "unknown protocol", "sparse_table1"),
        ("model: null, published_only: true, ", "model: null, ", "14:16", "expected a model", None),
        ("name: demo", "name: a/b", "1:1", "expected a name of letters", None),
        ("title: A demonstration", "title: A demonstration\ndefault_scale: papr", "3:1", "unknown scale", "paper"),
        ("title: A demonstration", "title: A\nmeasure: [latncy]", "3:11", "expected 'complexity'", None),
        ("title: A demonstration", "title: A\nreport: {sweep: kep_ratio}", "3:10", "unknown option or", "keep_ratio"),
        ("title: A demonstration", "title: A\ntitle: B", "3:1", "given twice", None),
    ],
)
def test_every_mistake_has_its_line(old: str, new: str, where: str, what: str, hint: str | None) -> None:
    assert old in GOOD
    with pytest.raises(SuiteError) as caught:
        load(GOOD.replace(old, new, 1))
    assert caught.value.message.startswith(f"demo.yaml:{where}")
    assert what in caught.value.message
    assert hint is None or hint in str(caught.value.hint)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "- a\n", "a string"])
def test_a_suite_is_a_mapping(text: str) -> None:
    with pytest.raises(SuiteError, match="expected a mapping"):
        load(text)


def test_the_scale_is_paper_where_data_is_given() -> None:
    suite = load(GOOD + "default_scale: smoke\n").suite
    assert suite.pick_scale(None, has_data=False) == "smoke"
    assert suite.pick_scale(None, has_data=True) == "paper"
    assert suite.pick_scale("smoke", has_data=True) == "smoke"
    with pytest.raises(UsageError, match="unknown scale"):
        suite.pick_scale("papr", has_data=False)
    assert load(GOOD).suite.pick_scale(None, has_data=False) == "paper"


BORROWER = """\
  - {id: "at-{keep_ratio}", model: sparse_detr_r50, matrix: {keep_ratio: [0.2]}, weights_of: sparse-0.1}
  - id: later
"""
BORROWED = GOOD.replace("  - id: later\n", BORROWER)


def test_a_cell_can_take_the_weights_of_an_earlier_one() -> None:
    loaded = load(BORROWED)
    borrower, source = cell(loaded, "smoke", "at-0.2"), cell(loaded, "smoke", "sparse-0.1")
    assert borrower.weights_of == source
    assert borrower.describe()["weights_of"] == "sparse-0.1"
    assert source.describe()["weights_of"] is None
    changed = cell(loaded, "smoke", "at-0.2", epochs=2)
    assert changed.weights_of is not None
    assert changed.weights_of.settings.epochs == 2
    own = cell(load(BORROWED.replace(", weights_of: sparse-0.1", "")), "smoke", "at-0.2")
    assert folder_name(own) != folder_name(borrower)


@pytest.mark.parametrize("source", ["sparse-0.9", "later", "at-0.2"])
def test_weights_of_no_earlier_cell_are_an_error(source: str) -> None:
    with pytest.raises(SuiteError, match=r"demo.yaml:11:82: variants\[1\].weights_of: unknown earlier cell"):
        load(BORROWED.replace("weights_of: sparse-0.1", f"weights_of: {source}"))


SHARED = GOOD.replace("paper: {data: coco, epochs: 50}", "paper: {like: deformable_50, epochs: 49}")


def test_a_scale_builds_on_a_shared_one() -> None:
    settings = cell(load(SHARED), "paper", "sparse-0.1").settings
    assert (settings.epochs, settings.lr, settings.lr_drops, settings.labels) == (49, 2e-4, [40], "category_id")
    text = SHARED.replace("options: {whatever: 1}", "scales: {paper: {like: dino_36}}")
    later = cell(load(text), "paper", "later").settings
    assert (later.epochs, later.lr, later.lr_sampling) == (36, 1e-4, 1.0)
    assert load(SHARED).suite.model_dump(exclude_unset=True)["scales"]["paper"]["lr_drops"] == [40]


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("like: deformable_50", "like: deformable_60", "16:11: scales.paper.like"),
        ("options: {whatever: 1}", "scales: {paper: {like: dino_30}}", "13:22: variants[1].scales.paper.like"),
    ],
)
def test_an_unknown_shared_scale_has_its_line(old: str, new: str, where: str) -> None:
    with pytest.raises(SuiteError) as caught:
        load(SHARED.replace(old, new))
    assert caught.value.message.startswith(f"demo.yaml:{where}: unknown shared scale")
    assert "did you mean" in str(caught.value.hint)


def test_suites_are_found_from_any_directory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert suites.locate("quickstart") == suites.locate("suites/quickstart.yaml")
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert suites.load("mine.yaml").suite.name == "demo"
    with pytest.raises(UsageError, match="unknown suite 'quikstart'"):
        suites.locate("quikstart")
    with pytest.raises(SuiteError, match="no such file"):
        suites.locate("other/quickstart.yaml")


def test_the_complexity_suite_counts_every_detector() -> None:
    from detrbench import models

    with_resnet50 = [name for name in models.names() if name.endswith("_r50")]
    assert [cell.model for cell in suites.load("complexity").cells("paper")] == with_resnet50
