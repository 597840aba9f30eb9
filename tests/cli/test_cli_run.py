"""`detrbench run`: what is done, kept, skipped and told, with steps that cost nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from typing import Any

import pytest
from workbench import Workbench

from detrbench import cli
from detrbench.errors import CheckpointError, EnvironmentLacking
from detrbench.results.folder import CellFolder
from detrbench.results.store import ResultsStore

ORDER = [
    ("sparse-0.1", "complexity"),
    ("sparse-0.3", "complexity"),
    ("sparse-0.1", "training"),
    ("sparse-0.1", "accuracy"),
    ("sparse-0.1", "dam"),
    ("sparse-0.3", "training"),
    ("sparse-0.3", "accuracy"),
    ("sparse-0.3", "dam"),
    ("sparse-0.1", "memory"),
    ("sparse-0.3", "memory"),
    ("sparse-0.1 sparse-0.3", "latency"),
]


def fail_at(cell: str, measure: str, error: BaseException) -> Any:
    def before(at_cell: str, at_measure: str) -> None:
        if (at_cell, at_measure) == (cell, measure):
            raise error

    return before


def states(bench: Workbench, cell: str) -> dict[str, tuple[str, str | None]]:
    results = {r.id: r for r in ResultsStore(bench.results).cells("demo", "smoke")}
    return {m: (e["state"], e["why"]) for m, e in results[cell].status["measures"].items()}


def test_everything_is_done_once_in_order(bench: Workbench) -> None:
    code, _, err = bench.type("run", "demo.yaml")
    assert code == 0, err
    assert bench.calls == ORDER
    assert states(bench, "sparse-0.3")["latency"] == ("done", None)
    assert states(bench, "later") == dict.fromkeys(states(bench, "later"), ("not_measured", "not built yet"))
    assert states(bench, "old")["accuracy"] == ("not_measured", "published figures only")
    assert bench.type("run", "demo.yaml")[0] == 0
    assert bench.calls == []


def test_fresh_takes_everything_again(bench: Workbench) -> None:
    bench.type("run", "demo.yaml")
    bench.type("run", "demo.yaml", "--fresh", "-k", "0.1", "--measure", "complexity,accuracy")
    assert bench.calls == [("sparse-0.1", "complexity"), ("sparse-0.1", "training"), ("sparse-0.1", "accuracy")]


def test_a_failing_cell_stops_nobody_and_is_retried(bench: Workbench) -> None:
    bench.before = fail_at("sparse-0.1", "training", CheckpointError("boom\nsecond line"))
    code, _, err = bench.type("run", "demo.yaml")
    assert code == 1
    assert "1 of 22 failed, first sparse-0.1 training: boom" in err
    assert states(bench, "sparse-0.1")["training"] == ("failed", "boom")
    assert states(bench, "sparse-0.1")["accuracy"] == ("not_measured", "training failed: boom")
    assert states(bench, "sparse-0.3")["accuracy"] == ("done", None)
    log = next(bench.results.glob("demo/smoke/cells/sparse-0.1-*/log.txt"))
    assert "Traceback" in log.read_text()
    bench.before = lambda cell, measure: None
    assert bench.type("run", "demo.yaml")[0] == 0
    assert bench.calls == [*ORDER[2:5], ("sparse-0.1", "memory"), ORDER[-1]]


def test_out_of_memory_says_so(bench: Workbench) -> None:
    bench.before = fail_at("sparse-0.1", "memory", MemoryError("of 3 GiB"))
    assert bench.type("run", "demo.yaml")[0] == 1
    assert states(bench, "sparse-0.1")["memory"] == ("failed", "out of memory: of 3 GiB")


def test_a_detector_that_cannot_be_timed_leaves_the_others_timed(bench: Workbench) -> None:
    bench.before = fail_at("sparse-0.1", "loading", RuntimeError("no"))
    assert bench.type("run", "demo.yaml")[0] == 1
    assert bench.calls[-1] == ("sparse-0.3", "latency")
    assert states(bench, "sparse-0.1")["latency"] == ("failed", "RuntimeError: no")
    assert states(bench, "sparse-0.3")["latency"] == ("done", None)


def test_timings_that_fail_together_are_all_failed(bench: Workbench) -> None:
    bench.before = fail_at("sparse-0.1 sparse-0.3", "latency", RuntimeError("no"))
    assert bench.type("run", "demo.yaml")[0] == 1
    assert {states(bench, f"sparse-{r}")["latency"] for r in (0.1, 0.3)} == {("failed", "RuntimeError: no")}


@pytest.mark.parametrize("at", [("sparse-0.3", "accuracy"), ("sparse-0.1 sparse-0.3", "latency")])
def test_an_interrupted_run_goes_on_where_it_was(bench: Workbench, at: tuple[str, str]) -> None:
    bench.before = fail_at(*at, KeyboardInterrupt())
    code, _, err = bench.type("run", "demo.yaml")
    assert code == 130
    assert "run the same command again" in err
    assert states(bench, "sparse-0.3")[at[1]] == ("not_measured", "interrupted")
    bench.before = lambda cell, measure: None
    assert bench.type("run", "demo.yaml")[0] == 0
    assert bench.calls == ORDER[ORDER.index(at) :]


@pytest.mark.parametrize("at", [ORDER[1], ORDER[2], ORDER[4], ORDER[-1]])
def test_a_killed_run_goes_on_and_does_nothing_twice(bench: Workbench, at: tuple[str, str]) -> None:
    def kill(cell: str, measure: str) -> None:
        if (cell, measure) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    bench.before = kill
    child = os.fork()
    if child == 0:
        cli.main(["run", "demo.yaml"])
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    bench.before = lambda cell, measure: None
    assert bench.type("run", "demo.yaml")[0] == 0
    assert bench.calls == ORDER[ORDER.index(at) :]
    assert bench.type("run", "demo.yaml")[0] == 0
    assert bench.calls == []


def test_a_cell_that_another_run_is_at_is_left_alone(bench: Workbench) -> None:
    bench.type("run", "demo.yaml", "--measure", "complexity")
    folder = CellFolder(next(bench.results.glob("demo/smoke/cells/sparse-0.1-*")))
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        with folder.lock():
            os.write(theirs, b"x")
            signal.pause()
    os.read(ours, 1)
    try:
        code, _, err = bench.type("run", "demo.yaml", "--fresh", "--measure", "complexity")
        assert code == 0
        assert bench.calls == [("sparse-0.3", "complexity")]
        assert "another run is at this cell: sparse-0.1" in err
        assert states(bench, "sparse-0.1")["complexity"] == ("done", None)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_full_disk_ends_the_run_with_4(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.type("run", "demo.yaml", "--measure", "complexity")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = bench.type("run", "demo.yaml")
    assert code == 4
    assert "no space left while writing" in err


def test_a_measure_that_this_machine_cannot_take_is_that_cells_failure(bench: Workbench) -> None:
    bench.before = fail_at("sparse-0.1", "dam", EnvironmentLacking("needs a telescope"))
    assert bench.type("run", "demo.yaml")[0] == 1
    assert states(bench, "sparse-0.1")["dam"] == ("failed", "needs a telescope")


def test_other_settings_go_to_another_folder(bench: Workbench) -> None:
    bench.type("run", "demo.yaml", "--measure", "complexity", "-k", "0.1")
    bench.type("run", "demo.yaml", "--measure", "complexity", "-k", "0.1", "--set", "epochs=5")
    assert len(list(bench.results.glob("demo/smoke/cells/sparse-0.1-*"))) == 2
    assert len(list(bench.results.glob("demo/smoke/cells/sparse-0.3-*"))) == 1
    current = ResultsStore(bench.results).cells("demo", "smoke")
    assert [r.cell["resolved"]["epochs"] for r in current] == [5, 2, 2, 2]


def test_another_training_does_not_go_on_from_this_ones_checkpoint(bench: Workbench) -> None:
    bench.type("run", "demo.yaml", "-k", "0.1")
    folder = CellFolder(next(bench.results.glob("demo/smoke/cells/sparse-0.1-*")))
    (folder.checkpoint / "key").write_text("of another training")
    (folder.checkpoint / "state.pt").write_text("half")
    folder.record("training").unlink()
    seen: list[bool] = []
    bench.before = lambda cell, measure: seen.append((folder.checkpoint / "state.pt").exists())
    bench.type("run", "demo.yaml", "-k", "0.1", "--measure", "accuracy")
    assert seen[0] is False


def test_a_half_done_training_keeps_its_checkpoint(bench: Workbench) -> None:
    bench.before = fail_at("sparse-0.1", "training", KeyboardInterrupt())
    bench.type("run", "demo.yaml", "-k", "0.1")
    folder = CellFolder(next(bench.results.glob("demo/smoke/cells/sparse-0.1-*")))
    (folder.checkpoint / "state.pt").write_text("half")
    seen: list[bool] = []
    bench.before = lambda cell, measure: seen.append((folder.checkpoint / "state.pt").exists())
    bench.type("run", "demo.yaml", "-k", "0.1")
    assert seen[0] is True


def test_a_lost_or_truncated_record_is_taken_again(bench: Workbench) -> None:
    bench.type("run", "demo.yaml")
    folder = CellFolder(next(bench.results.glob("demo/smoke/cells/sparse-0.1-*")))
    folder.record("accuracy").write_text('{"schema": 1, ')
    folder.record("dam").unlink()
    bench.type("run", "demo.yaml")
    assert bench.calls == [("sparse-0.1", "accuracy"), ("sparse-0.1", "dam")]


def test_without_data_the_rest_is_measured(bench: Workbench) -> None:
    assert bench.type("run", "demo.yaml", "--scale", "paper", "-k", "0.1")[0] == 0
    assert bench.calls == [("sparse-0.1", "complexity"), ("sparse-0.1", "memory"), ("sparse-0.1", "latency")]
    (result,) = [r for r in ResultsStore(bench.results).cells("demo", "paper") if r.id == "sparse-0.1"]
    assert "no data: give" in str(result.state("accuracy")[1])


def test_missing_data_that_was_asked_for_is_an_error(bench: Workbench) -> None:
    code, _, err = bench.type("run", "demo.yaml", "--data", "nowhere")
    assert code == 2
    assert "nowhere: no data set here" in err
    assert not bench.results.exists()


def test_a_missing_checkpoint_is_told(bench: Workbench) -> None:
    text = (bench.folder / "demo.yaml").read_text()
    text = text.replace("matrix: {keep_ratio: [0.1, 0.3]}", "matrix: {keep_ratio: [0.1]}, checkpoint: gone.pth")
    (bench.folder / "demo.yaml").write_text(text)
    assert bench.type("run", "demo.yaml")[0] == 0
    assert states(bench, "sparse-0.1")["accuracy"][1] == f"no checkpoint: {bench.folder / 'gone.pth'} does not exist"
    (bench.folder / "gone.pth").write_bytes(b"here")
    assert bench.type("run", "demo.yaml")[0] == 0
    assert ("sparse-0.1", "training") not in bench.calls
    assert states(bench, "sparse-0.1")["accuracy"] == ("done", None)
    (bench.folder / "gone.pth").write_bytes(b"changed")
    bench.type("run", "demo.yaml")
    assert ("sparse-0.1", "accuracy") in bench.calls


def test_dry_run_writes_nothing(bench: Workbench) -> None:
    code, out, _ = bench.type("run", "demo.yaml", "--dry-run")
    assert code == 0
    assert "sparse-0.3" in out
    assert "not built yet" in out
    assert not bench.results.exists()
    assert bench.calls == []


def test_json_is_one_document_on_stdout(bench: Workbench) -> None:
    code, out, err = bench.type("run", "demo.yaml", "--dry-run", "--json")
    assert code == 0
    plan = json.loads(out)
    assert {"cell", "measure", "state", "why", "seconds", "key"} == set(plan["suites"][0]["items"][0])
    bench.before = fail_at("sparse-0.1", "memory", RuntimeError("no"))
    code, out, err = bench.type("run", "demo.yaml", "--json")
    assert code == 1
    document = json.loads(out)
    assert document["schema"] == 1
    assert document["failed"] == 1
    assert {"suite", "scale", "cell", "measure", "state", "why", "seconds", "folder"} == set(document["outcomes"][0])
    assert "[1/" in err


def test_plain_lines_tell_epochs_and_time_left(bench: Workbench) -> None:
    _, out, _ = bench.type("run", "demo.yaml")
    assert "[3/12] sparse-0.1  training  epoch 2/2, loss 1.00  (0 s left, " in out
    assert "[12/12] sparse-0.3  latency  done" in out


def test_results_of_a_deleted_cell_are_taken_again(bench: Workbench) -> None:
    bench.type("run", "demo.yaml", "--measure", "complexity")
    shutil.rmtree(next(bench.results.glob("demo/smoke/cells/sparse-0.1-*")))
    bench.type("run", "demo.yaml", "--measure", "complexity")
    assert bench.calls == [("sparse-0.1", "complexity")]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "demo.yaml", "-k", "nothing"], 5, "fits no cell"),
        (["run", "demo.yaml", "-k", "a and"], 2, "column 6"),
        (["run", "demo.yaml", "--measure", "latncy"], 2, "did you mean 'latency'"),
        (["run", "demo.yaml", "--measure", ","], 2, "expected names"),
        (["run", "demo.yaml", "--scale", "smok"], 2, "did you mean 'smoke'"),
        (["run", "demo.yaml", "--set", "epochs"], 2, "expected KEY=VALUE"),
        (["run", "demo.yaml", "--set", "epochs=[1"], 2, "not valid YAML"),
        (["run", "demo.yaml", "--set", "epochs=1", "--set", "epochs=2"], 2, "given twice"),
        (["run", "demo.yaml", "--limit", "0"], 2, "limit"),
        (["run", "dem"], 2, "unknown suite"),
        (["run", "gone.yaml"], 2, "no such file"),
        (["run"], 2, "SUITE"),
        (["run", "demo.yaml", "--no-such-option"], 2, "No such option"),
    ],
)
def test_mistakes_have_their_exit_code(bench: Workbench, arguments: list[str], code: int, said: str) -> None:
    found, _, err = bench.type(*arguments)
    assert found == code
    assert said in err
    assert "Traceback" not in err
    assert not bench.results.exists()


def test_an_internal_error_is_one_line_and_with_debug_a_traceback(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detrbench.run import execute

    def break_down(*_: Any) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(execute, "prepare", break_down)
    code, _, err = bench.type("run", "demo.yaml")
    assert code == 3
    assert (
        err.strip() == "internal error: ZeroDivisionError: of all things; run it again with --debug for the traceback"
    )
    assert "Traceback" in bench.type("run", "demo.yaml", "--debug")[2]


def test_a_cell_with_anothers_weights_waits_for_that_training(bench: Workbench) -> None:
    path = bench.folder / "demo.yaml"
    borrower = "  - {id: sparser, model: sparse_detr_r50, options: {keep_ratio: 0.05}, weights_of: sparse-0.1}\n"
    path.write_text(path.read_text().replace("  - {id: later", borrower + "  - {id: later"))
    assert bench.type("run", "demo.yaml", "-k", "sparser", "--measure", "accuracy")[0] == 0
    assert bench.calls == []
    assert states(bench, "sparser")["accuracy"] == ("not_measured", "sparse-0.1 is not trained")
    assert bench.type("run", "demo.yaml", "-k", "sparse", "--measure", "accuracy")[0] == 0
    assert [call for call in bench.calls if "0.3" not in call[0]] == [
        ("sparse-0.1", "training"),
        ("sparse-0.1", "accuracy"),
        ("sparser", "accuracy"),
    ]
