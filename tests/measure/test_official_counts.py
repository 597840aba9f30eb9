"""Our counts against what the official code's own counter gives for the official code.

Figures: fvcore with its default handles run on kakaobrain/sparse-detr@f40632c (util/benchmark.py), detrex's
tools/analyze_model.py for what detrex has, and fvcore run on IDEA-Research/DINO, IDEA-Research/Lite-DETR, H-DETR and
DAC-DETR, GFLOPs at 1 a multiply-add; `published` are the papers' rows, met under the protocol that reproduces them.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import pytest

from detrbench import models
from detrbench.measure import complexity, counters, protocols


def slow(*case: Any) -> Any:
    """A case of parts and rules that others have too."""
    return pytest.param(*case, marks=pytest.mark.full)


def measured(name: str, protocol: str, **options: Any) -> float:
    create = functools.partial(models.create, name, **options)
    return complexity.measure(create, protocols.get("complexity", protocol)).gflops


@pytest.mark.parametrize(
    ("name", "options", "protocol", "published"),
    [
        ("deformable_detr_r50", {}, "deformable_table", 172.9),
        ("efficient_detr_r50", {}, "deformable_table", 177.3),
        ("sparse_detr_r50", {"keep_ratio": 0.1}, "sparse_table1", 105.4),
        slow("sparse_detr_r50", {"keep_ratio": 0.2}, "sparse_table1", 112.9),
        slow("sparse_detr_r50", {"keep_ratio": 0.3}, "sparse_table1", 120.5),
        slow("sparse_detr_r50", {"keep_ratio": 0.4}, "sparse_table1", 128.0),
        slow("sparse_detr_r50", {"keep_ratio": 0.5}, "sparse_table1", 135.6),
    ],
)
def test_published_figures_to_the_last_digit(
    name: str, options: dict[str, Any], protocol: str, published: float
) -> None:
    assert round(measured(name, protocol, **options), 1) == published


@pytest.mark.parametrize(
    ("name", "options", "protocol", "gflops"),
    [
        ("deformable_detr_r50", {}, "official_800x1066", 166.045),
        slow("deformable_detr_two_stage_r50", {}, "official_800x1066", 170.322),
        ("efficient_detr_r50", {}, "official_800x1066", 170.282),
        slow("efficient_detr_r50", {}, "official_850x1040", 177.331),
        slow("sparse_detr_r50", {"keep_ratio": 0.3}, "official_800x1066", 124.629),
    ],
)
def test_official_counter(name: str, options: dict[str, Any], protocol: str, gflops: float) -> None:
    assert measured(name, protocol, **options) == pytest.approx(gflops, abs=1e-3)


LITE_6X1 = {"high_updates": 6, "blocks": 1}


@pytest.mark.parametrize(
    ("name", "options", "protocol", "gflops"),
    [
        # The original DINO runs the box head on all tokens, Lite DETR's on the selected ones: two GFLOPs.
        ("dino_r50", {}, "official_800x1066", 236.845),
        ("dino_r50", {"source": "lite_detr"}, "lite_table", 234.61),
        slow("dino_r50", {"source": "lite_detr"}, "official_850x1040", 243.853),
        ("lite_dino_r50", {}, "lite_table", 152.361),
        ("lite_dino_r50", LITE_6X1, "lite_table", 142.41),
        ("lite_dino_r50", {"high_levels": 2}, "lite_table", 130.19),
        ("lite_dino_r50", {"key_aware": False}, "lite_table", 148.23),
        ("deformable_detr_pp_r50", {}, "official_800x1066", 227.326),
        slow("h_detr_r50", {}, "official_800x1066", 227.326),
        ("dac_detr_r50", {}, "official_800x1066", 236.113),
        ("deformable_detr_two_stage_r50", {"source": "detrex"}, "detrex_800x1066", 168.865),
        slow("deformable_detr_two_stage_r50", {"source": "detrex"}, "detrex_sampled_850x1040", 177.708),
        slow("dino_r50", {"source": "detrex"}, "detrex_800x1066", 235.417),
        slow("dino_r50", {"source": "detrex"}, "detrex_sampled_850x1040", 246.609),
        slow("focus_detr_r50", {}, "detrex_800x1066", 148.997),
        ("focus_detr_r50", {}, "detrex_sampled_850x1040", 155.356),
        slow("deformable_detr_swin_t", {"source": "sparse_detr"}, "deformable_table", 180.398),
        slow("efficient_detr_swin_t", {}, "deformable_table", 184.797),
        ("sparse_detr_swin_t", {"keep_ratio": 0.3}, "sparse_table1", 128.540),
    ],
)
def test_official_counter_of_other_code_within_a_thousandth(
    name: str, options: dict[str, Any], protocol: str, gflops: float
) -> None:
    assert measured(name, protocol, **options) == pytest.approx(gflops, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "protocol", "gflops"),
    [
        ("deformable_detr_two_stage_r50", {"source": "detrex"}, "focus_table", 175.638),
        ("dino_r50", {"source": "detrex"}, "focus_table", 244.457),
        ("focus_detr_r50", {}, "focus_table", 154.514),
        ("dn_deformable_detr_r50", {}, "focus_table", 231.3),
        ("efficient_detr_r50", {}, "official_first100", 177.106),
        ("sparse_detr_r50", {"keep_ratio": 0.1, "encoder_auxiliary": False}, "official_first100", 109.551),
        ("dino_r50", {"source": "lite_detr"}, "official_first100", 243.605),
        ("dac_detr_r50", {}, "official_first100", 245.202),
    ],
)
@pytest.mark.full
def test_official_counter_over_100_images(name: str, options: dict[str, Any], protocol: str, gflops: float) -> None:
    assert measured(name, protocol, **options) == pytest.approx(gflops, rel=1e-3)


# What the profiler of RT-DETR's tool knows (torch 2.14): convolutions, and products of matrices.
TOOL = {
    "rt_detr_r18vd": 51.2950 + 0.2754 + 9.4771,
    "rt_detr_r34vd": 81.4940 + 0.3147 + 11.2534,
    "rt_detr_r50vd": 121.8642 + 0.3933 + 14.8058,
    "rt_detr_r101vd": 243.4728 + 0.5900 + 15.7102,
}


@pytest.mark.parametrize("name", [slow(name) if name != "rt_detr_r18vd" else name for name in TOOL])
def test_the_official_tool_of_rt_detr_but_for_fused_attention(name: str) -> None:
    layers = models.resolve(name, {}).options["num_decoder_layers"]
    width = models.resolve(name, {}).options["encoder_dim"] or 256
    attention = 2 * 2 * (400 * 400 * width + layers * 300 * 300 * 256) / 1e9
    assert measured(name, "rt_detr_table") - attention == pytest.approx(TOOL[name], rel=1e-4)


# Means over the first 100 images by part; names of modules on our side, sums of rows on theirs where the cut differs.
SHARED_ROWS = {"backbone": 72.849, "neck": 4.313}
BY_PART = {
    "deformable_detr_r50": (
        {},
        172.708,
        {"encoder.layers": 85.952, "decoder": 9.314, "heads": 0.28},
    ),
    "deformable_detr_two_stage_r50": (
        {},
        177.145,
        {"encoder.layers": 85.952, "queries": 4.12 + 0.079, "decoder": 9.314 + 0.517 - 0.28, "heads": 0.28},
    ),
    "sparse_detr_r50": (
        {"keep_ratio": 0.3},
        129.606,
        {
            "encoder.layers": 30.892,
            "encoder.auxiliary_heads": 4.322,
            "encoder": 30.892 + 4.322 + 3.238,
            "queries": 4.12 + 0.04,
            "decoder": 9.314 + 0.517 - 0.28,  # the box heads of the refinement run inside the decoder
            "heads": 0.28,
        },
    ),
}


@pytest.mark.full
@pytest.mark.parametrize("name", BY_PART)
def test_official_counter_by_part_over_100_images(name: str) -> None:
    options, total, rows = BY_PART[name]
    protocol = protocols.get("complexity", "official_first100")
    detector = models.create(name, **options).eval().to("meta")
    parts = {part: part for part in detector.parts}
    sums: Counter[str] = Counter()
    for size, images in protocol.inputs.sizes().items():
        tally = counters.count(detector, *size, protocol.outputs)
        for part, gflops in tally.gflops_by_part(protocol.rule, parts).items():
            sums[part] += gflops * images / 100
        for module in ("encoder.layers", "encoder.auxiliary_heads"):
            sums[module] += tally.gflops(protocol.rule, module) * images / 100
    assert sum(sums[part] for part in parts) == pytest.approx(total, abs=1e-3)
    for part, gflops in {**SHARED_ROWS, **rows}.items():
        assert sums[part] == pytest.approx(gflops, abs=2e-3), part


def test_common_counts_only_what_inference_needs() -> None:
    """Auxiliary heads cost nothing there, and every operation that has work is counted."""
    protocol = protocols.get("complexity", "common").at(800, 1066)
    counted = {
        auxiliary: complexity.measure(
            functools.partial(models.create, "sparse_detr_r50", encoder_auxiliary=auxiliary),
            protocol,
        )
        for auxiliary in (True, False)
    }
    assert counted[True].gflops == counted[False].gflops
    unexpected = {"aten::add", "aten::mul", "aten::sigmoid", "aten::_softmax", "aten::relu", "detrbench::msda"}
    assert not unexpected & counted[True].uncounted.keys()
