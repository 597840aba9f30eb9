"""The real command, for each exit code and each output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from made_results import MadeResults, times

from detrbench import cli
from detrbench.results.store import ResultsStore

JUNIT_SCHEMA = Path(__file__).parents[1] / "check" / "junit.xsd"
Type = Any  # (arguments) -> (exit code, stdout, stderr)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeResults:
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    made = MadeResults(tmp_path)
    for cell, gflops, ap, skill, middle in (("deformable", 4.0, 40.0, 0.6, 10.0), ("sparse", 3.0, 39.0, 0.6, 8.0)):
        made.gflops(cell, gflops)
        made.ap(cell, ap, skill)
        made.latency(cell, times(len(cell), middle))
    return made


@pytest.fixture
def check(made: MadeResults, capsys: pytest.CaptureFixture[str]) -> Type:
    def typed(budgets: str | dict[str, str], *arguments: str) -> tuple[int, str, str]:
        lines = [f"  b{i}: {text}" for i, text in enumerate(budgets.splitlines())] if isinstance(budgets, str) else []
        (made.folder / "b.yaml").write_text("\n".join(["suite: demo.yaml", "budgets:", *lines]) + "\n")
        code = cli.main(["check", "b.yaml", "--retries", "0", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return typed


KEPT = "ap >= 38\ngflops <= 4\nlatency(sparse) <= 0.9 x latency(deformable)"


def test_0_all_hold(check: Type) -> None:
    code, out, _ = check(KEPT)
    assert (code, "5 ok" in out, "at most 5%" in out) == (0, True, True)


@pytest.mark.parametrize(
    ("budget", "found"),
    [
        ("ap(sparse) >= 39.5", "39.0 points"),
        ("gflops <= 3.5", "BROKEN        b0 (gflops <= 3.5) at deformable: 4.00"),
        ("latency(sparse) <= 0.75 x latency(deformable)", "ratio 0.8"),
        ("latency <= 9", "10.0"),
        ("ap(nothing) >= 1", "no such cell"),
        ("gflops == baseline", "it is not in the baseline"),
    ],
)
def test_1_findings(check: Type, budget: str, found: str) -> None:
    code, out, err = check(budget)
    assert (code, found in out) == (1, True), out
    assert "hint" in err


def test_1_a_cell_failed_or_vanished(check: Type, made: MadeResults) -> None:
    made.state("sparse", "accuracy", "failed", "it broke")
    code, out, _ = check("ap >= 1")
    assert (code, "accuracy failed: it broke" in out) == (1, True)
    for path in (made.store.root / "demo/smoke/cells").glob("sparse-*"):
        path.rename(made.folder / "elsewhere")
    code, out, _ = check("gflops >= 1")
    assert (code, "a cell of the suite without results" in out) == (1, True)


@pytest.mark.parametrize("line", ["ap => 3", "fps >= 3"])
def test_2_a_mistake_has_its_place(check: Type, line: str) -> None:
    code, _, err = check(f"gflops <= 4\n{line}")
    column = 7 + ("=>" in line) * 3
    assert (code, f"b.yaml:4:{column}: budgets.b1: " in err) == (2, True), err


def test_2_unknown_keys_and_empty_reason(made: MadeResults, check: Type, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(KEPT, "--update-baseline", " ")[0] == 2
    (made.folder / "b.yaml").write_text("suite: demo.yaml\nbudget:\n  a: ap >= 1\n")
    assert cli.main(["check", "b.yaml"]) == 2
    assert "did you mean 'budgets'?" in capsys.readouterr().err


def test_4_not_measured(check: Type, made: MadeResults) -> None:
    made.state("sparse", "latency", "not_measured", "no data")
    code, out, _ = check("latency <= 30")
    assert (code, "NOT MEASURED" in out, "no data" in out) == (4, True, True)
    assert check(KEPT, "--results", "nowhere")[0] == 4


def test_5_no_budgets(made: MadeResults, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "demo.yaml"]) == 5
    assert cli.main(["check"]) == 5


def test_6_nobody_can_know(check: Type, made: MadeResults) -> None:
    made.latency("sparse", times(3, 8.0, noise=0.3))
    code, out, _ = check("latency(sparse) <= 0.8 x latency(deformable)")
    assert (code, "UNCLEAR" in out) == (6, True)


def test_6_another_gpu_than_the_baselines(check: Type, made: MadeResults) -> None:
    assert check(KEPT, "--update-baseline", "the first")[0] == 0
    budgets = "latency <= 1.1 x baseline\ngflops == baseline"
    assert check(budgets)[0] == 0
    for cell, middle in (("deformable", 10.0), ("sparse", 8.0)):
        made.latency(cell, times(9, middle), gpus=["NVIDIA A100"])
    code, out, _ = check(budgets)
    assert (code, "no baseline of this hardware (nvidia-a100); there are some of nvidia-h200" in out) == (6, True)
    assert out.count("\nok ") == 2  # GFLOPs are the same on every machine


def test_baseline_broken_new_and_gone(check: Type, made: MadeResults) -> None:
    code, out, _ = check(KEPT, "--update-baseline", "the first")
    assert (code, "the first" in out) == (0, True)
    path = made.folder / "baselines/demo/smoke/nvidia-h200.yaml"
    assert "reason: the first" in path.read_text()
    budgets = "ap >= baseline - 0.3\ngflops == baseline\nlatency <= 1.05 x baseline"
    made.session = "another"
    assert check(budgets)[0] == 0  # nothing changed
    made.gflops("sparse", 3.1)
    made.latency("sparse", times(5, 8.8))
    code, out, _ = check(budgets)
    assert (code, out.count("BROKEN")) == (1, 2)
    made.ap("sparse", 30.0, skill=0.5)
    code, out, _ = check("ap >= baseline - 0.3")
    assert (code, out.count("BROKEN"), "difference -" in out) == (1, 1, True)
    code, out, _ = check(budgets, "--update-baseline", "slower, on purpose")
    assert "sparse gflops (common): 3.000 -> 3.100" in out
    path.write_text(path.read_text().replace("deformable:", "renamed:"))
    code, out, _ = check(budgets)
    assert (code, "in the baseline but not in the results" in out, "not in the baseline" in out) == (
        1,
        True,
        True,
    )
    path.write_text("cells: 3\n")
    assert check(budgets)[0] == 2


def test_one_process_cannot_be_held_against_a_baseline(check: Type, made: MadeResults) -> None:
    check(KEPT, "--update-baseline", "the first")
    made.session = "another"
    made.latency("sparse", times(5, 80.0, processes=1))
    code, out, _ = check("latency(sparse) <= 1.05 x baseline")
    assert (code, "variation between processes is unknown" in out) == (6, True)


def test_unclear_is_timed_again_and_bounded(made: MadeResults, monkeypatch: pytest.MonkeyPatch) -> None:
    from detrbench.check import budgets, checking

    made.latency("sparse", times(3, 8.0, noise=0.3))
    (made.folder / "b.yaml").write_text(
        "suite: demo.yaml\nbudgets: {a: latency(sparse) <= 0.9 x latency(deformable)}\n"
    )
    asked: list[int] = []

    def again(of: Any, scale: str, options: Any, cells: Any, processes: int, note: Any) -> str | None:
        asked.append(processes)
        if len(asked) == 2:
            made.latency("sparse", times(4, 8.0, noise=0.005))
        return None

    monkeypatch.setattr(checking, "_time_again", again)
    loaded = budgets.load("b.yaml")
    assert checking.check(loaded, checking.CheckOptions(retries=3), lambda text: None).exit_code == 0
    assert asked == [3, 6]
    made.latency("sparse", times(3, 8.0, noise=0.3))
    asked[:] = [0, 0]
    assert checking.check(loaded, checking.CheckOptions(retries=2), lambda text: None).exit_code == 6
    assert asked == [0, 0, 3, 6]


def test_results_of_another_machine_are_not_timed_here(check: Type, made: MadeResults, capsys: Any) -> None:
    for cell in ("deformable", "sparse"):
        made.latency(cell, times(len(cell), 8.0, noise=0.3), device="cpu", cpu="A processor of the past")
    before = [path.read_text() for path in made.store.root.glob("*/*/cells/*/latency.json")]
    code, out, _ = check("latency(sparse) <= 1.0 x latency(deformable)", "--retries", "1")
    assert (code, "not timed again: the results are of other hardware" in out) == (6, True), out
    assert [path.read_text() for path in made.store.root.glob("*/*/cells/*/latency.json")] == before


def test_one_cell_is_checked_by_its_address(made: MadeResults, capsys: pytest.CaptureFixture[str]) -> None:
    (made.folder / "budgets").mkdir()
    (made.folder / "budgets" / "demo.yaml").write_text("suite: demo\nbudgets: {small: gflops <= 3.5}\n")
    assert cli.main(["check", "demo.yaml"]) == 1  # the other has 4
    assert cli.main(["check", "demo.yaml:sparse@smoke"]) == 0
    assert capsys.readouterr().out.rpartition("demo")[2].count("\nok ") == 1
    assert cli.main(["check", "demo.yaml:spars"]) == 0
    assert cli.main(["check", "demo.yaml:deformable"]) == 1
    assert cli.main(["check", "demo.yaml:nothing"]) == 2
    assert cli.main(["check", "demo.yaml:sparse", "--update-baseline", "why"]) == 2
    assert capsys.readouterr().err.endswith(
        "error: --update-baseline: a baseline is of a whole suite\nhint: leave out :ID\n"
    )


def test_json(check: Type) -> None:
    code, out, _ = check("gflops <= 3.5", "--json")
    document = json.loads(out)
    assert document["exit_code"] == code == 1
    found = {one["cell"]: one for one in document["suites"][0]["judgements"]}
    assert found["deformable"]["status"] == "broken"
    assert (found["deformable"]["value"], found["deformable"]["limit"], found["deformable"]["line"]) == (4.0, 3.5, 3)


def test_junit_is_what_readers_accept(check: Type, made: MadeResults) -> None:
    made.latency("sparse", times(3, 8.0, noise=0.3))
    made.state("deformable", "accuracy", "not_measured", "no <data> & \x07 no weights")
    assert check("gflops <= 3.5\nlatency(sparse) <= 0.8 x latency(deformable)\nap >= 1", "--junit", "out/c.xml")[0] == 1
    import xmlschema

    xmlschema.XMLSchema(JUNIT_SCHEMA).validate(made.folder / "out/c.xml")
    root = ElementTree.parse(made.folder / "out/c.xml").getroot()
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(cases)
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure")) == 1
        assert int(suite.attrib["errors"]) == len(suite.findall("testcase/error")) == 2
        assert len({case.attrib["name"] for case in cases}) == len(cases)


def test_github(check: Type, made: MadeResults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(made.folder / "summary.md"))
    _, out, _ = check("gflops <= 3.5")
    assert "::error file=b.yaml,line=3,col=7,title=demo%3A broken::b0 (gflops <= 3.5) at deformable: 4.00" in out
    summary = (made.folder / "summary.md").read_text()
    assert "### demo, smoke scale: 1 ok, 1 broken" in summary
    assert "| BROKEN | b0: gflops \\<= 3.5 | deformable | 4.00 |" in summary


def test_check_and_compare_do_without_torch(check: Type, made: MadeResults) -> None:
    check(KEPT, "--update-baseline", "the first")
    check("ap >= baseline - 1\nlatency <= 1.1 x baseline")
    program = (
        "import sys; from detrbench import cli; "
        "codes = [cli.main(['check', 'b.yaml']), cli.main(['compare', 'results', 'results'])]; "
        "sys.exit(repr((codes, 'torch' in sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=made.folder, check=False)
    assert "([0, 0], False)" in done.stderr


def test_the_ready_budgets_are_readable() -> None:
    from detrbench.check import budgets

    for path in (Path(__file__).parents[2] / "budgets").glob("*.yaml"):
        assert budgets.load(str(path)).budgets
    assert ResultsStore("nowhere").suites() == []
