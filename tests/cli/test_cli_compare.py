from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from made_results import MadeResults, times

from detrbench import cli


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeResults:
    monkeypatch.chdir(tmp_path)
    made = MadeResults(tmp_path)
    shared = times(0, 1.0, noise=0.2)
    for cell, gflops, skill, factor in (("deformable", 4.0, 0.6, 10.0), ("sparse", 3.0, 0.4, 8.0)):
        made.gflops(cell, gflops)
        made.ap(cell, 100 * skill, skill)
        made.latency(cell, [[factor * a * b for a, b in zip(*rows)] for rows in zip(shared, times(len(cell), 1.0))])
    return made


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, object]]:
    assert cli.main(["compare", *arguments, "--format", "json"]) == 0
    return {row["figure"]: row for row in json.loads(capsys.readouterr().out)["rows"]}


def test_two_cells_are_paired(made: MadeResults, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "dem:deformable@smoke", "results/demo/smoke:sp")
    assert "params" not in found  # equal
    assert found["gflops"]["verdict"] == "better"
    assert (found["ap"]["verdict"], found["ap"]["about"]) == ("undecided", "training")
    assert found["ap"]["note"] == ""
    assert found["ap"]["detectable"] is None
    assert float(str(found["ap"]["high"])) < 0
    latency = found["latency"]
    assert (latency["verdict"], latency["note"]) == ("better", "")
    assert 0.78 < latency["low"] < latency["change"] < latency["high"] < 0.82  # type: ignore[operator]


def test_each_way_to_run_is_compared_with_itself(made: MadeResults, capsys: pytest.CaptureFixture[str]) -> None:
    made.latency("deformable", times(1, 10.0), optimised=0.5)
    assert "latency[optimised]" not in rows(capsys, "demo:deformable", "demo:sparse")  # on one side only
    made.latency("sparse", times(2, 8.0), optimised=0.75)
    found = rows(capsys, "demo:deformable", "demo:sparse")
    assert found["latency"]["change"] == pytest.approx(0.8, abs=0.01)
    assert found["latency[optimised]"]["change"] == pytest.approx(1.2, abs=0.01)
    assert found["latency[optimised]"]["verdict"] == "worse"
    assert cli.main(["compare", "demo:deformable", "demo:sparse"]) == 0
    assert "Latency, ms[optimised]" in capsys.readouterr().out


def test_what_is_not_shared_is_said(made: MadeResults, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = MadeResults(tmp_path, session="another", results="other")
    other.ap("sparse", 41.0)
    other.latency("sparse", times(1, 8.0), gpus=["NVIDIA A100"])
    found = rows(capsys, "results", "other")
    assert "per-image results are missing" in str(found["ap"]["note"])
    assert (found["ap"]["verdict"], found["gflops"]["verdict"]) == ("unclear", None)
    assert found["latency"]["verdict"] == "unclear"
    assert "not the same hardware" in str(found["latency"]["note"])
    assert json.loads(json.dumps(found["gflops"]))["b"] is None


def test_every_format(made: MadeResults, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("text", "md", "csv", "latex"):
        assert cli.main(["compare", "demo:deformable", "demo:sparse", "--format", form]) == 0
        out = capsys.readouterr().out
        assert "deformable" in out
        assert "better" in out
        if form == "csv":
            assert {row["verdict"] for row in csv.DictReader(io.StringIO(out))} == {"better", "undecided"}
        else:
            assert "undecided (one" in out
        if form in ("text", "md"):
            assert "another seed may turn the" in out
            assert "Equal in every row, not shown: Params" in out
            assert "Margins" in out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("nowhere", "results"), 2), (("demo:sparce", "demo:sparse"), 2), (("demo", "demo:sparse"), 0), (("demo",), 2)],
)
def test_exit_codes(made: MadeResults, arguments: tuple[str, ...], code: int) -> None:
    assert cli.main(["compare", *arguments]) == code


def test_nothing_in_common(made: MadeResults, tmp_path: Path) -> None:
    other = MadeResults(tmp_path, results="other")
    other.gflops("sparse", 3.0)
    left = MadeResults(tmp_path, results="left")
    left.gflops("deformable", 3.0)
    assert cli.main(["compare", "left", "other"]) == 0  # one cell each: those two
    made.store.root.joinpath("demo").rename(tmp_path / "gone")
    assert cli.main(["compare", "results", "other"]) == 2


def test_a_quantity_that_differs_in_one_pair_alone_is_shown_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, sparse in (("a", 3.0), ("b", 2.5)):
        made = MadeResults(tmp_path, results=folder)
        made.gflops("deformable", 4.0)
        made.gflops("sparse", sparse)
    from detrbench.compare.cells import compare

    found = compare("a", "b", tmp_path)
    assert [row.cell for row in found.rows if row.quantity.name == "gflops"] == ["deformable", "sparse"]
    assert [quantity.name for quantity in found.equal] == ["params"]
