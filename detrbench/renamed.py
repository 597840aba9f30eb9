"""Suites that once had another name, which goes on working in commands, files of budgets and folders of results."""

from __future__ import annotations

from pathlib import Path

# Focus-DETR's suites lacked their paper's name, which all others have.
CURRENT = {
    former: f"focus_{former}"
    for former in (
        "table1_main",
        "table2_resnet101",
        "table3_correlation",
        "table4_components",
        "table5_modulation",
        "table6_keep_ratio",
        "table7_cascade",
        "table8_intervals",
        "table9_swin",
        "table10_convergence",
        "table11_dual_attention",
        "figure2_cost_split",
        "figure7_ap_gflops",
    )
}
FORMER = {current: former for former, current in CURRENT.items()}


def current(name: str) -> str:
    """What a suite is called now: the name itself, where it was never another."""
    return CURRENT.get(name, name)


def place(root: Path, name: str, suffix: str = "") -> Path:
    """Where what belongs to a suite lies: under its name, or its former one where only that is there.

    Args:
        root: a folder with a file or a folder for each suite.
        name: the suite's.
        suffix: ends the names of files.
    """
    path, former = root / f"{name}{suffix}", FORMER.get(name)
    if former is None or path.exists() or not (root / f"{former}{suffix}").exists():
        return path
    return root / f"{former}{suffix}"


def owner(path: Path) -> str:
    """The suite to which a folder belongs: the inverse of `place`. A folder of both names has each its own."""
    now = current(path.name)
    return path.name if path.is_dir() and place(path.parent, now) != path else now
