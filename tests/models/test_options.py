"""Which values the options of parts take, that every other one is refused, and with what words."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from detrbench import cli, models
from detrbench.errors import UsageError
from detrbench.models.catalogue import COMMON, CRITERION
from detrbench.models.options import ListOf, Maybe, OneOf, Option, Real, Whole

# A detector that takes the option, by the option's name.
WITH: dict[str, dict[str, Any]] = {
    "width": {"backbone": "tiny"},
    "frozen_stages": {"backbone": "resnet50"},
    **{key: {"backbone": "swin_tiny"} for key in ("window_size", "drop_path", "swin_frozen_stages")},
    **{key: {"encoder": "sparse"} for key in ("keep_ratio", "encoder_auxiliary")},
    **{
        key: {"encoder": "focus"}
        for key in (
            "keep_ratios",
            "modulation",
            "foreground_supervision",
            "scale_intervals",
            "fine_tokens",
            "category_score",
        )
    },
    "dual_attention": {"encoder": "focus"},
    **{
        key: {"encoder": "salience"}
        for key in ("level_ratios", "layer_ratios", "background_embedding", "background_cells", "token_fusion")
    },
    **{key: {"encoder": "lite"} for key in ("high_levels", "high_updates", "blocks", "low_updates")},
    **{key: {"queries": "encoder"} for key in ("ranking", "content", "mixed_selection", "proposals_matched_by")},
    "boxes_of": {"queries": "mixed"},
    **{
        key: {"encoder": "hybrid"}
        for key in ("encoder_dim", "encoder_ffn_dim", "attention_layers", "fusion_blocks", "fusion_expansion")
    },
    **{key: {"backbone": "resnet18_vd"} for key in ("frozen_norms", "pixels")},
    **{key: {"decoder": "rt_detr"} for key in ("level_points", "sampling")},
    "refine_boxes": {"queries": "encoder", "decoder": "deformable", "denoising": "none"},
    **{key: {"one_to_many": "hybrid"} for key in ("one_to_many_queries", "one_to_many_repeats", "one_to_many_weight")},
    "denoising_groups": {"denoising": "dn"},
    **{key: {"denoising": "cdn"} for key in ("label_noise", "box_noise", "denoising_queries", "no_object_row")},
    **{key: {"auxiliary_decoder": "collaborative"} for key in ("one_to_many_threshold", "one_to_many_top")},
    **{key: {"auxiliary_decoder": "mixed"} for key in ("second_prediction", "one_to_many_class_weight")},
}
FLAGS = [
    "key_aware",
    "encoder_auxiliary",
    "dual_attention",
    "foreground_supervision",
    "category_score",
    "low_updates",
    "mixed_selection",
    "refine_boxes",
    "look_forward_twice",
    "self_attention_first",
    "shared_heads",
    "no_object_row",
    "background_embedding",
    "token_fusion",
    "redundancy_removal",
    "projection_bias",
    "frozen_norms",
]
COUNTS = [
    "num_heads",
    "num_points",
    "ffn_dim",
    "num_encoder_layers",
    "num_decoder_layers",
    "num_queries",
    "num_classes",
    "window_size",
    "position_temperature",
    "fine_tokens",
    "high_updates",
    "blocks",
    "one_to_many_repeats",
    "denoising_groups",
    "denoising_queries",
    "one_to_many_top",
    "background_cells",
    "encoder_ffn_dim",
    "attention_layers",
    "fusion_blocks",
]
# Option: the values at its edges that it takes, and those behind them that it does not.
EDGES: dict[str, tuple[list[Any], list[Any]]] = {
    **{name: ([True, False], [0, 1, "true", None]) for name in FLAGS},
    **{name: ([1], [0, -1, 1.5, "1", True, None]) for name in COUNTS},
    "hidden_dim": ([32, 256], [0, -32, 256.0]),
    "num_levels": ([3, 4, 5], [0, 2]),
    "dropout": ([0, 0.0, 0.99], [-0.1, 1.0, 2]),
    "logit_eps": ([1e-9, 0.49], [0.0, 0.5, -1e-5]),
    "class_weight": ([0.0, 3], [-0.1, "2"]),
    "proposal_class_weight": ([None, 0.0, 2], [-0.1, "none", True]),
    "class_loss": (["focal", "iou_aware", "varifocal"], ["fokal", None, 1]),
    "iou_eps": ([0.0, 1e-6], [-1e-6, 1.0]),
    "finest_stride": ([8, 16, 32], [2, 12, 64, 8.0, "8", True]),
    "frozen_stages": ([0, 5], [-1, 6]),
    "swin_frozen_stages": ([0, 5], [-1, 6]),
    "drop_path": ([0.0, 0.9], [-0.1, 1.0]),
    "width": ([2], [1, 0]),
    "position_offset": ([-1.0, 0, 1], [-1.1, 1.1]),
    "keep_ratio": ([1e-6, 1, 1.0], [0, 0.0, -0.3, 1.01, 3.0, "0.3"]),
    "keep_ratios": (
        [[1.0, 1, 0.5, 0.3, 0.2, 0.1]],
        [[], [0.5] * 5, [0.5] * 7, [0.5] * 5 + [0], [0.5] * 5 + [1.1], [0.5] * 5 + ["a"], (0.5,) * 6, 0.5],
    ),
    "level_ratios": ([[0.1, 1, 1.0, 0.5]], [[], [0.5] * 3, [0.5] * 5, [0.5] * 3 + [0], [0.5] * 3 + [1.1], 0.5]),
    "layer_ratios": ([[1.0, 1, 0.5, 0.3, 0.2, 0.1]], [[], [0.5] * 5, [0.5] * 7, [0.5] * 5 + [0], [0.5] * 5 + [1.1]]),
    "modulation": (["top_down", "bottom_up", "none"], ["sideways", None]),
    "scale_intervals": (
        [[[-1, 64], [64, 256], [128, 512], [256.5, 999999]]],
        [[[0, 1]], [[0, 1]] * 5, [[0, 1, 2]] * 4, [[1, 1]] * 4, [[2, 1]] * 4, [0, 1, 2, 3], [["a", "b"]] * 4],
    ),
    "high_levels": ([1, 3], [0, 4]),
    "low_updates": ([True], [1]),
    "encoder_dim": ([None, 32, 384], [0, 4, 48, 256.0]),
    "fusion_expansion": ([0.5, 1, 2.0], [0.0, -1]),
    "pixels": (["unit", "imagenet"], ["raw", None]),
    "level_points": ([None, [1, 2, 3, 4]], [[], [4, 4, 4], [4] * 5, [0, 4, 4, 4], 4]),
    "sampling": (["bilinear", "nearest"], ["discrete", None]),
    "ranking": (["first_class", "max_class"], ["max_klass", ""]),
    "content": (["projected", "memory"], ["box"]),
    "boxes_of": (["all", "always", "selected"], ["some"]),
    "proposals_matched_by": (["prediction", "anchor"], ["class", None]),
    "one_to_many_queries": ([6, 1500], [0, -1, 5]),
    "one_to_many_weight": ([0, 0.0, 2.5], [-1.0]),
    "second_prediction": (["inner", "inner_ffn", "output"], ["ffn", True]),
    "one_to_many_class_weight": ([0, 0.0, 2.5], [-1.0]),
    "label_noise": ([0.0, 2.0], [-0.1, 2.1]),
    "box_noise": ([0.0, 1.0], [-0.1, 1.1]),
    "one_to_many_threshold": ([0.0, 1], [-0.1, 1.1]),
}
KNOWN = {*COMMON, *CRITERION, *itertools.chain.from_iterable(part.options for part in models.all_parts())}


def resolved(option: str, value: Any) -> Any:
    detector = {"backbone": "tiny", **WITH.get(option, {})}
    return models.resolve("dino_r50", {**detector, option: value}).options[option]


def test_every_option_is_tried() -> None:
    assert set(EDGES) == KNOWN


@pytest.mark.parametrize(("option", "value"), [(name, value) for name, (good, _) in EDGES.items() for value in good])
def test_taken(option: str, value: Any) -> None:
    if option in ("num_encoder_layers", "num_heads"):
        value *= 6 if option == "num_encoder_layers" else 8  # Focus-DETR's shares are six
    assert resolved(option, value) == value


@pytest.mark.parametrize(
    ("option", "value"),
    [(name, value) for name, (_, bad) in EDGES.items() for value in [*bad, math.nan, math.inf, -math.inf, [math.nan]]],
)
def test_refused(option: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(option, value)
    first, _, rest = caught.value.message.partition(": expected ")
    assert first == f"option {option!r}"
    assert rest.endswith(f", got {value!r}")
    assert "\n" not in caught.value.message + str(caught.value.hint)
    assert f"{option}: " in str(caught.value.hint)


def test_the_noise_of_dn_has_its_own_bounds() -> None:
    assert models.resolve("dn_deformable_detr_r50", {"label_noise": 1}).options["label_noise"] == 1.0
    for option in ("label_noise", "box_noise"):
        with pytest.raises(UsageError, match=f"{option}.*at least 0 and at most 1, got 1.5"):
            models.resolve("dn_deformable_detr_r50", {option: 1.5})


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("deformable_detr_r50", {"num_heads": 7}, "'num_heads': expected a divisor of hidden_dim, 256, got 7"),
        ("deformable_detr_r50", {"hidden_dim": 100}, "'num_heads': expected a divisor of hidden_dim, 100, got 8"),
        ("deformable_detr_r50", {"hidden_dim": 80}, "'hidden_dim': expected a multiple of 32 .*, got 80"),
        ("focus_detr_r50", {"num_encoder_layers": 3}, "'keep_ratios': expected 3 shares, one for each .*, got "),
        ("focus_detr_r50", {"num_levels": 5}, "'scale_intervals': expected 5 pairs, one for each level, got "),
        ("dino_5scale_r50", {"encoder": "focus"}, "'scale_intervals': expected 5 pairs"),
        ("salience_detr_r50", {"num_encoder_layers": 3}, "'layer_ratios': expected 3 shares, one for each .*, got "),
        ("salience_detr_r50", {"num_levels": 5}, "'level_ratios': expected 5 shares, one for each level, got "),
        ("dino_2scale_r50", {"encoder": "lite"}, "'high_levels': expected 1 to 1, .*, got 3"),
        ("dino_2scale_r50", {"finest_stride": 8}, "'num_levels': expected 3 or more, .*, got 2"),
        ("dino_r50", {"finest_stride": 4, "num_levels": 3}, "'num_levels': expected 4 or more, .*, got 3"),
        ("rt_detr_r50vd", {"encoder_dim": 48}, "'encoder_dim': expected a multiple of 32 .* num_heads, 8, got 48"),
        ("rt_detr_r50vd", {"num_levels": 4, "level_points": [4, 4, 4]}, "'level_points': expected 4 numbers"),
        ("rt_detr_r50vd", {"key_aware": True, "sampling": "nearest"}, "'sampling': expected 'bilinear' where"),
        ("rt_detr_r50vd", {"key_aware": True, "level_points": [4] * 3}, "'level_points': expected None where"),
        ("h_detr_r50", {"one_to_many_queries": 3}, "'one_to_many_queries': expected one_to_many_repeats, 6, or more"),
    ],
)
def test_options_that_do_not_fit_each_other(model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        models.resolve(model, options)


def test_the_nearest_choice_is_told() -> None:
    with pytest.raises(UsageError) as caught:
        models.resolve("efficient_detr_r50", {"ranking": "max_klass"})
    assert caught.value.message == "option 'ranking': expected 'first_class' or 'max_class', got 'max_klass'"
    assert str(caught.value.hint).startswith("did you mean 'max_class'? ranking: ")


def test_whole_numbers_count_as_fractions_where_the_default_is_one() -> None:
    spec = models.resolve("sparse_detr_r50", {"keep_ratio": 1, "proposal_class_weight": 2})
    assert type(spec.options["keep_ratio"]) is float
    assert type(spec.options["proposal_class_weight"]) is int


def test_a_variant_is_held_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from detrbench.models import zoo

    models.names()
    wrong = models.Variant("wrong_tiny", "", "", models.describe("sparse_detr_tiny").parts, {"keep_ratio": 2.0})
    monkeypatch.setitem(zoo._VARIANTS, "wrong_tiny", wrong)
    with pytest.raises(UsageError, match=r"'keep_ratio': .* got 2.0"):
        models.resolve("wrong_tiny", {})


def test_a_default_must_be_one_of_the_values() -> None:
    with pytest.raises(UsageError, match="at least 1, got 0"):
        Option(0.0, "never", Real(1))


@pytest.mark.parametrize(
    ("default", "good", "bad"),
    [
        (True, [False], [1]),
        (1, [-5], [1.0, True]),
        (1.0, [-5], [math.nan, "a", True]),
        ("a", ["b"], [1]),
        ([1], [["a", None]], [[], [math.inf], 1]),
        (None, [1, "a", [2]], [math.nan]),
    ],
)
def test_without_a_rule_the_type_of_the_default_holds(default: Any, good: list[Any], bad: list[Any]) -> None:
    option = Option(default, "anything of that kind")
    assert all(option.accepts.allow(value) for value in good)
    assert not any(option.accepts.allow(value) for value in bad)


def test_words() -> None:
    assert [str(values) for values in (Whole(), Whole(2), Whole(0, 5), Real(), Real(0), Real(above=0, maximum=1))] == [
        "a whole number",
        "a whole number, 2 or more",
        "a whole number from 0 to 5",
        "a number",
        "a number at least 0",
        "a number above 0 and at most 1",
    ]
    assert str(OneOf(4, 8, "a")) == "4, 8 or 'a'"
    assert str(ListOf(Real(), length=2)) == "a list of 2, each a number"
    assert str(ListOf(Whole(1))) == "a list, each a whole number, 1 or more"
    assert str(Maybe(Whole(1))) == "a whole number, 1 or more, or null"


def test_a_suite_with_such_a_value_is_refused_where_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "wrong.yaml"
    suite.write_text(
        "name: wrong\ntitle: Wrong\nvariants:\n  - {id: one, model: sparse_detr_tiny, options: {keep_ratio: .nan}}\n"
        "scales:\n  smoke: {data: shapes}\nmeasure: [complexity]\n"
    )
    assert cli.main(["validate", str(suite)]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "wrong.yaml:4" in shown
    assert "option 'keep_ratio': expected a number above 0 and at most 1, got nan" in shown


def test_list_parts_says_what_options_take(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["list", "parts"]) == 0
    shown = capsys.readouterr().out
    assert "keep_ratio: a number above 0 and at most 1" in shown
    assert "ranking: 'first_class' or 'max_class'" in shown
    assert cli.main(["list", "parts", "--json"]) == 0
    rows = {(row["kind"], row["name"]): row for row in json.loads(capsys.readouterr().out)["parts"]}
    assert rows["backbone", "tiny"]["accepts"]["finest_stride"] == "4, 8, 16 or 32"
    assert list(rows["backbone", "tiny"]["accepts"]) == rows["backbone", "tiny"]["options"]
