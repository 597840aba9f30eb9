"""How names and numbers read in a report: one fixed format a quantity, so that equal results give equal text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

MINUS = "\N{MINUS SIGN}"
ABSENT = "\N{EN DASH}"

# Columns of published tables that are figures; every other column says which row it is.
FIGURES = frozenset(
    [
        *("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL"),
        *("AP_gain", "AP_original", "AP_approx", "APS_gain"),
        *("params_M", "gflops", "gflops_approx", "backbone_gflops", "encoder_gflops", "encoder_gflops_approx"),
        *("decoder_gflops", "encoder_cut_percent", "fps", "fps_batch4", "corr_mean", "corr_std"),
        *("encoder_latency_ms", "decoder_latency_ms"),
        *("train_mem_GB", "train_gpu_hours", "train_gpu_hours_per_epoch"),
        *("queries_per_object_approx", "token_share_percent"),
    ]
)

_LABELS = {
    "keep_ratio": "Keep ratio",
    "topk_bbr": "Top-k, box refinement",
    "params_M": "Params (M)",
    "gflops": "GFLOPs",
    "fps": "FPS",
    "epochs": "Epochs",
    "box_refine": "Box refinement",
    "two_stage": "Two-stage",
    "num_classes": "Classes",
    "KDA": "KDA",
    "HL": "HL",
    "LL": "LL",
}

_BACKBONES = {
    "resnet50": "R50",
    "resnet101": "R101",
    **{f"resnet{depth}_vd": f"R{depth}vd" for depth in (18, 34, 50, 101)},
    "swin_tiny": "Swin-T",
    "swin_base": "Swin-B",
    "swin_base_384": "Swin-B, 384",
    "swin_large": "Swin-L",
    "tiny": "tiny",
}


def label(key: str) -> str:
    """A column's or option's heading: `keep_ratio` as "Keep ratio"."""
    if key in _LABELS:
        return _LABELS[key]
    words = key.replace("_", " ")
    return words if words[:2].isupper() else words[:1].upper() + words[1:]


def shown(key: str, value: Any) -> str:
    """A describing value as text: booleans as yes and no, lists with commas, backbones by the papers' names."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(f"[{shown(key, item)}]" if isinstance(item, list) else shown(key, item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(name, item)}" for name, item in value.items())
    if isinstance(value, float) and math.isinf(value):
        return "\N{INFINITY}"
    if key == "backbone":
        return _BACKBONES.get(str(value), str(value))
    return printed(value) if isinstance(value, int | float) else str(value)


def printed(value: Any) -> str:
    """A number as its source prints it: 121 stays 121, 46.0 stays 46.0."""
    if value is None:
        return ABSENT
    return repr(value).replace("-", MINUS) if isinstance(value, int | float) else str(value)


def fixed(value: float | None, decimals: int, sign: bool = False) -> str:
    """A number with a fixed count of decimals, thousands apart, a real minus, and no negative zero."""
    if value is None or not math.isfinite(value):
        return ABSENT
    text = f"{abs(value):,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    zero = not any(digit in "123456789" for digit in text)
    prefix = "" if zero else MINUS if value < 0 else "+" if sign else ""
    return prefix + text


def decimals_of_time(milliseconds: Iterable[float | None]) -> int:
    """Of times that stand together: none of seconds, two of what takes a few milliseconds."""
    largest = max((value for value in milliseconds if value is not None), default=0.0)
    return 0 if largest >= 1000 else 1 if largest >= 20 else 2


def interval(low: float | None, high: float | None, decimals: int) -> str:
    """`[44.9, 45.7]`, or nothing where there is no interval."""
    if low is None or high is None:
        return ""
    return f"[{fixed(low, decimals)}, {fixed(high, decimals)}]"


def spread(value: float, sd: float | None, decimals: int) -> str:
    """`24.2 ± 1.3`: a mean over seeds with its standard deviation between them; of one training the figure alone."""
    return fixed(value, decimals) + (f" ± {fixed(sd, decimals)}" if sd is not None else "")


def letter(index: int) -> str:
    """The mark of the n-th footnote: a, b, ..., z, aa, ab, ..."""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def table_name(reference: str) -> str:
    """The table of a reference as a paper names it: "focus_detr/table6" as "Table 6"."""
    name = reference.rpartition("/")[2].replace("_", " ")
    return re.sub(r"^(table|figure)(?=\d)", lambda word: f"{word[1].capitalize()} ", name)


def data_label(settings: Mapping[str, Any]) -> str:
    """The data of a scale in words: "shapes 128 px", "COCO"."""
    data = settings.get("data")
    if isinstance(data, Mapping):
        settings, data = {**settings, **data}, data.get("kind", data.get("data"))
    if data == "coco":
        name = str(settings.get("path") or "").rstrip("/").rpartition("/")[2]
        return f"data folder {name}" if name and "coco" not in name.lower() else "COCO"
    size = settings.get("image_size")
    return f"{data or 'data not named'} {size} px" if size and data else str(data or "data not named")
