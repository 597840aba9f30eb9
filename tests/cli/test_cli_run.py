"""`detrbench run`: what is done, kept, skipped and told, with steps that cost nothing."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import signal
import time
from typing import Any

import pytest
from terminal import Terminal

from detrbench import cli
from detrbench.errors import CheckpointError, Damaged, EnvironmentLacking
from detrbench.results import folder as results_folder
from detrbench.results.folder import CellFolder
from detrbench.results.store import ResultsStore
from detrbench.run import steps

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


def states(terminal: Terminal, cell: str) -> dict[str, tuple[str, str | None]]:
    results = {r.id: r for r in ResultsStore(terminal.results).cells("demo", "smoke")}
    return {m: (e["state"], e["why"]) for m, e in results[cell].status["measures"].items()}


def test_everything_is_done_once_in_order(terminal: Terminal) -> None:
    code, _, err = terminal.type("run", "demo.yaml")
    assert code == 0, err
    assert terminal.calls == ORDER
    assert states(terminal, "sparse-0.3")["latency"] == ("done", None)
    for name in ("later", "old"):
        assert set(states(terminal, name).values()) == {("not_measured", "published figures only")}
    assert states(terminal, "old")["accuracy"] == ("not_measured", "published figures only")
    assert terminal.type("run", "demo.yaml")[0] == 0
    assert terminal.calls == []


def test_tensorboard_is_asked_for_and_missed_before_anything_is_done(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(steps, "take", lambda item, *more: asked.append((item.measure, item.tensorboard)) or {})
    terminal.type("run", "demo.yaml", "-k", "0.1", "--measure", "accuracy", "--tensorboard")
    assert ("training", True) in asked
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = terminal.type("run", "demo.yaml", "--tensorboard")
    assert code == 4
    assert "pip install 'detrbench[tensorboard]'" in err


def test_fresh_takes_everything_again(terminal: Terminal) -> None:
    terminal.type("run", "demo.yaml")
    terminal.type("run", "demo.yaml", "--fresh", "-k", "0.1", "--measure", "complexity,accuracy")
    assert terminal.calls == [("sparse-0.1", "complexity"), ("sparse-0.1", "training"), ("sparse-0.1", "accuracy")]


def test_a_failing_cell_stops_nobody_and_is_retried(terminal: Terminal) -> None:
    terminal.before = fail_at("sparse-0.1", "training", CheckpointError("boom\nsecond line"))
    code, _, err = terminal.type("run", "demo.yaml")
    assert code == 1
    assert "1 of 22 failed, first sparse-0.1 training: boom" in err
    assert states(terminal, "sparse-0.1")["training"] == ("failed", "boom")
    assert states(terminal, "sparse-0.1")["accuracy"] == ("not_measured", "training failed: boom")
    assert states(terminal, "sparse-0.3")["accuracy"] == ("done", None)
    log = next(terminal.results.glob("demo/smoke/cells/sparse-0.1-*/log.txt"))
    assert "Traceback" in log.read_text()
    terminal.before = lambda cell, measure: None
    assert terminal.type("run", "demo.yaml")[0] == 0
    assert terminal.calls == [*ORDER[2:5], ("sparse-0.1", "memory"), ORDER[-1]]


def test_out_of_memory_says_so(terminal: Terminal) -> None:
    terminal.before = fail_at("sparse-0.1", "memory", MemoryError("of 3 GiB"))
    assert terminal.type("run", "demo.yaml")[0] == 1
    assert states(terminal, "sparse-0.1")["memory"] == ("failed", "out of memory: of 3 GiB")


def test_a_detector_that_cannot_be_timed_leaves_the_others_timed(terminal: Terminal) -> None:
    terminal.before = fail_at("sparse-0.1", "loading", RuntimeError("no"))
    assert terminal.type("run", "demo.yaml")[0] == 1
    assert terminal.calls[-1] == ("sparse-0.3", "latency")
    assert states(terminal, "sparse-0.1")["latency"] == ("failed", "RuntimeError: no")
    assert states(terminal, "sparse-0.3")["latency"] == ("done", None)


def test_timings_that_fail_together_are_all_failed(terminal: Terminal) -> None:
    terminal.before = fail_at("sparse-0.1 sparse-0.3", "latency", RuntimeError("no"))
    assert terminal.type("run", "demo.yaml")[0] == 1
    assert {states(terminal, f"sparse-{r}")["latency"] for r in (0.1, 0.3)} == {("failed", "RuntimeError: no")}


def test_timing_takes_as_many_processes_as_were_asked_for(terminal: Terminal) -> None:
    asked = ["run", "demo.yaml", "--measure", "latency", "--timing-processes", "2"]
    assert terminal.type(*asked)[0] == 0
    assert terminal.calls == [("sparse-0.1 sparse-0.3", "latency in 2 processes")]


@pytest.mark.parametrize(("at", "left"), [
    (("sparse-0.3", "memory"), [("sparse-0.3", "memory")]),
    (("sparse-0.3", "loading"), [("sparse-0.3", "latency")]),
    (("sparse-0.1 sparse-0.3", "latency"), [("sparse-0.1", "latency"), ("sparse-0.3", "latency")]),
])  # fmt: skip
def test_a_timed_cell_that_takes_too_long_is_not_measured_and_the_others_are(
    terminal: Terminal, at: tuple[str, str], left: list[tuple[str, str]]
) -> None:
    def hang(*step: str) -> None:
        if step == at:
            time.sleep(60)

    terminal.before = hang
    code, _, errors = terminal.type("run", "demo.yaml", "--measure", "memory,latency", "--time-limit", "0.002")
    assert code == 1
    assert f"{len(left)} of 8 not measured, first {left[0][0]} {left[0][1]}: took longer than its" in errors
    assert "Traceback" not in errors
    cells, measures = ("sparse-0.1", "sparse-0.3"), ("memory", "latency")
    found = {(cell, measure): states(terminal, cell)[measure][0] for cell in cells for measure in measures}
    assert found == {step: "not_measured" if step in left else "done" for step in found}
    terminal.before = lambda *step: None
    assert terminal.type("run", "demo.yaml", "--measure", "memory,latency")[0] == 0


@pytest.mark.parametrize("at", [("sparse-0.3", "accuracy"), ("sparse-0.1 sparse-0.3", "latency")])
def test_an_interrupted_run_goes_on_where_it_was(terminal: Terminal, at: tuple[str, str]) -> None:
    terminal.before = fail_at(*at, KeyboardInterrupt())
    code, _, err = terminal.type("run", "demo.yaml")
    assert code == 130
    assert "run the same command again" in err
    assert states(terminal, "sparse-0.3")[at[1]] == ("not_measured", "interrupted")
    terminal.before = lambda cell, measure: None
    assert terminal.type("run", "demo.yaml")[0] == 0
    assert terminal.calls == ORDER[ORDER.index(at) :]


@pytest.mark.parametrize("at", [ORDER[1], ORDER[2], ORDER[4], ORDER[-1]])
def test_a_killed_run_goes_on_and_does_nothing_twice(terminal: Terminal, at: tuple[str, str]) -> None:
    def kill(cell: str, measure: str) -> None:
        if (cell, measure) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    terminal.before = kill
    child = os.fork()
    if child == 0:
        cli.main(["run", "demo.yaml"])
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    terminal.before = lambda cell, measure: None
    assert terminal.type("run", "demo.yaml")[0] == 0
    assert terminal.calls == ORDER[ORDER.index(at) :]
    assert terminal.type("run", "demo.yaml")[0] == 0
    assert terminal.calls == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_told_to_end_notes_where_it_was(terminal: Terminal, number: int, code: int) -> None:
    def end(cell: str, measure: str) -> None:
        if (cell, measure) == ORDER[2]:
            os.kill(os.getpid(), number)

    terminal.before = end
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind a script (`... &`)
        os._exit(cli.main(["run", "demo.yaml"]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
    assert states(terminal, ORDER[2][0])[ORDER[2][1]] == ("not_measured", "interrupted")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_cell_that_another_run_is_at_is_left_alone(terminal: Terminal) -> None:
    terminal.type("run", "demo.yaml", "--measure", "complexity")
    folder = CellFolder(next(terminal.results.glob("demo/smoke/cells/sparse-0.1-*")))
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        with folder.lock():
            os.write(theirs, b"x")
            signal.pause()
    os.read(ours, 1)
    try:
        code, _, err = terminal.type("run", "demo.yaml", "--fresh", "--measure", "complexity")
        assert code == 1
        assert terminal.calls == [("sparse-0.3", "complexity")]
        assert "1 cells are locked by another run: sparse-0.1" in err
        assert f"another run holds this cell ({os.uname().nodename}, process {child})" in err
        assert states(terminal, "sparse-0.1")["complexity"] == ("done", None)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_full_disk_ends_the_run_with_4(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.type("run", "demo.yaml", "--measure", "complexity")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = terminal.type("run", "demo.yaml")
    assert code == 4
    assert "no space left while writing" in err


def test_a_measure_that_this_machine_cannot_take_is_that_cells_failure(terminal: Terminal) -> None:
    terminal.before = fail_at("sparse-0.1", "dam", EnvironmentLacking("needs a telescope"))
    assert terminal.type("run", "demo.yaml")[0] == 1
    assert states(terminal, "sparse-0.1")["dam"] == ("failed", "needs a telescope")


def test_other_settings_go_to_another_folder(terminal: Terminal) -> None:
    terminal.type("run", "demo.yaml", "--measure", "complexity", "-k", "0.1")
    terminal.type("run", "demo.yaml", "--measure", "complexity", "-k", "0.1", "--set", "epochs=5")
    assert len(list(terminal.results.glob("demo/smoke/cells/sparse-0.1-*"))) == 2
    assert len(list(terminal.results.glob("demo/smoke/cells/sparse-0.3-*"))) == 1
    current = ResultsStore(terminal.results).cells("demo", "smoke")
    assert [r.cell["resolved"]["epochs"] for r in current] == [5, 2, 2, 2]


def test_a_clock_set_back_shows_what_was_run_last(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_folder, "_now", lambda: "2030-01-01")
    terminal.type("run", "demo.yaml", "--measure", "memory")
    monkeypatch.setattr(results_folder, "_now", lambda: "2020-01-01")
    terminal.type("run", "demo.yaml", "--measure", "memory", "-s", "epochs=3", "-k", "sparse-0.1")
    shown = {cell.id: cell.cell["resolved"]["epochs"] for cell in ResultsStore(terminal.results).cells("demo", "smoke")}
    assert shown == {"sparse-0.1": 3, "sparse-0.3": 2, "later": 2, "old": 2}


def test_another_training_does_not_go_on_from_this_ones_checkpoint(terminal: Terminal) -> None:
    terminal.type("run", "demo.yaml", "-k", "0.1")
    folder = CellFolder(next(terminal.results.glob("demo/smoke/cells/sparse-0.1-*")))
    (folder.checkpoint / "key").write_text("of another training")
    (folder.checkpoint / "state.pt").write_text("half")
    folder.record("training").unlink()
    seen: list[bool] = []
    terminal.before = lambda cell, measure: seen.append((folder.checkpoint / "state.pt").exists())
    terminal.type("run", "demo.yaml", "-k", "0.1", "--measure", "accuracy")
    assert seen[0] is False


def test_a_half_done_training_keeps_its_checkpoint(terminal: Terminal) -> None:
    terminal.before = fail_at("sparse-0.1", "training", KeyboardInterrupt())
    terminal.type("run", "demo.yaml", "-k", "0.1")
    folder = CellFolder(next(terminal.results.glob("demo/smoke/cells/sparse-0.1-*")))
    (folder.checkpoint / "state.pt").write_text("half")
    seen: list[bool] = []
    terminal.before = lambda cell, measure: seen.append((folder.checkpoint / "state.pt").exists())
    terminal.type("run", "demo.yaml", "-k", "0.1")
    assert seen[0] is True


def test_a_lost_or_truncated_record_is_taken_again(terminal: Terminal) -> None:
    terminal.type("run", "demo.yaml")
    folder = CellFolder(next(terminal.results.glob("demo/smoke/cells/sparse-0.1-*")))
    folder.record("accuracy").write_text('{"schema": 1, ')
    folder.record("dam").unlink()
    terminal.type("run", "demo.yaml")
    assert terminal.calls == [("sparse-0.1", "accuracy"), ("sparse-0.1", "dam")]


def test_without_data_counting_is_done_and_random_weights_are_timed_only_when_asked(terminal: Terminal) -> None:
    command = ("run", "demo.yaml", "--scale", "paper", "-k", "0.1")
    code, _, err = terminal.type(*command)
    assert code == 0
    assert "no data, so no accuracy, dam, memory, latency: give COCO with --data DIR, or --scale smoke" in err
    assert terminal.calls == [("sparse-0.1", "complexity")]
    code, out, _ = terminal.type(*command, "--dry-run")
    assert [line.split()[:3] for line in out.splitlines()[3:]] == [
        ["cell", "measure", "state"],
        ["sparse-0.1", "complexity", "done"],
    ]
    terminal.type(*command, "--measure", "memory,latency")
    assert terminal.calls == [("sparse-0.1", "memory"), ("sparse-0.1", "latency")]
    (result,) = [r for r in ResultsStore(terminal.results).cells("demo", "paper") if r.id == "sparse-0.1"]
    assert "no data: give" in str(result.state("accuracy")[1])


def test_missing_data_that_was_asked_for_is_an_error(terminal: Terminal) -> None:
    code, _, err = terminal.type("run", "demo.yaml", "--data", "nowhere")
    assert code == 2
    assert "nowhere: no data set here" in err
    assert not terminal.results.exists()


def test_a_missing_checkpoint_is_told(terminal: Terminal) -> None:
    text = (terminal.folder / "demo.yaml").read_text()
    text = text.replace("matrix: {keep_ratio: [0.1, 0.3]}", "matrix: {keep_ratio: [0.1]}, checkpoint: gone.pth")
    (terminal.folder / "demo.yaml").write_text(text)
    assert terminal.type("run", "demo.yaml")[0] == 0
    missing = states(terminal, "sparse-0.1")["accuracy"][1]
    assert str(missing).startswith("checkpoint: ")
    assert str(missing).endswith("which is not there")
    (terminal.folder / "gone.pth").write_bytes(b"here")
    assert terminal.type("run", "demo.yaml")[0] == 0
    assert ("sparse-0.1", "training") not in terminal.calls
    assert states(terminal, "sparse-0.1")["accuracy"] == ("done", None)
    (terminal.folder / "gone.pth").write_bytes(b"changed")
    terminal.type("run", "demo.yaml")
    assert ("sparse-0.1", "accuracy") in terminal.calls


def test_a_misspelt_model_is_no_success(terminal: Terminal) -> None:
    suite = terminal.folder / "demo.yaml"
    old = "{id: old, model: null, published_only: true}"
    suite.write_text(suite.read_text().replace(old, "{id: old, model: sparse_der_r50}"))
    code, _, err = terminal.type("run", "demo.yaml", "--measure", "complexity")
    assert code == 1
    assert "unknown model 'sparse_der_r50'" in err
    assert "did you mean 'sparse_detr_r50'?" in err
    assert ("sparse-0.3", "complexity") in terminal.calls  # the others are measured all the same


@pytest.mark.parametrize(
    "setting", ["epochs=-1", "epochs=0", "batch_size=0", "lr=.nan", "lr=0", "ema=1", "seed=-1", "clip_norm=.inf"]
)
def test_a_recipe_that_nobody_could_train_by_is_refused(terminal: Terminal, setting: str) -> None:
    code, _, err = terminal.type("run", "demo.yaml", "--set", setting, "--dry-run")
    assert code == 2
    assert f"{setting.partition('=')[0]}: expected " in err


def test_weights_that_rot_are_not_measured(terminal: Terminal) -> None:
    assert terminal.type("run", "demo.yaml", "-k", "0.1", "--measure", "accuracy")[0] == 0
    folder = CellFolder(next(terminal.results.glob("demo/smoke/cells/sparse-0.1-*")))
    folder.check_beside("training")
    content = folder.weights.read_bytes()
    folder.weights.write_bytes(content[:-1])  # shorter: seen by the plan
    terminal.type("run", "demo.yaml", "-k", "0.1", "--measure", "accuracy")
    assert terminal.calls == [("sparse-0.1", "training")]
    folder.weights.write_bytes(b"Weights")  # as long, other bytes: seen when they are read
    with pytest.raises(Damaged, match="not the bytes that were written"):
        folder.check_beside("training")
    terminal.type("run", "demo.yaml", "-k", "0.1", "--measure", "accuracy")
    assert terminal.calls == [("sparse-0.1", "training")]
    assert folder.weights.with_name("model.safetensors.damaged").read_bytes() == b"Weights"


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ('"sparse-{keep_ratio}"', '"../../sparse-{keep_ratio}"', "expected no path"),
        ('"sparse-{keep_ratio}"', '"sparse\\x1b{keep_ratio}"', r"expected no control characters, got 'sparse\x1b0.1'"),
        ('"sparse-{keep_ratio}"', '"{keep_ratio:>2000000000}"', "expected plain names in braces"),
        ('"sparse-{keep_ratio}"', '"{keep_ratio!r}"', "expected plain names in braces"),
        ("  smoke: {", "  ../../../escaped: {", "expected no path"),
    ],
)
def test_nothing_is_written_outside(terminal: Terminal, was: str, now: str, said: str) -> None:
    suite = terminal.folder / "demo.yaml"
    suite.write_text(suite.read_text().replace(was, now).replace("default_scale: smoke\n", ""))
    code, _, err = terminal.type("run", "demo.yaml", "--measure", "complexity")
    assert code == 2
    assert said in err
    assert [path.name for path in terminal.folder.iterdir() if path.is_dir()] == []


def test_a_cell_that_names_another_place_is_left_out(terminal: Terminal) -> None:
    terminal.type("run", "demo.yaml", "--measure", "complexity")
    folder = CellFolder(next(terminal.results.glob("demo/smoke/cells/sparse-0.1-*")))
    folder.cell.write_text(folder.cell.read_text().replace("id: sparse-0.1", "id: ../../../sparse"))
    told: list[str] = []
    ids = [cell.id for cell in ResultsStore(terminal.results, told.append).cells("demo", "smoke")]
    assert ids == ["sparse-0.3", "later", "old"]
    assert any("expected no path" in line for line in told)


def test_dry_run_writes_nothing(terminal: Terminal) -> None:
    code, out, _ = terminal.type("run", "demo.yaml", "--dry-run")
    assert code == 0
    assert "sparse-0.3" in out
    assert "published figures only" in out
    assert not terminal.results.exists()
    assert terminal.calls == []


def test_json_is_one_document_on_stdout(terminal: Terminal) -> None:
    code, out, err = terminal.type("run", "demo.yaml", "--dry-run", "--json")
    assert code == 0
    plan = json.loads(out)
    assert {"cell", "measure", "state", "why", "seconds", "key", "official"} == set(plan["suites"][0]["items"][0])
    terminal.before = fail_at("sparse-0.1", "memory", RuntimeError("no"))
    code, out, err = terminal.type("run", "demo.yaml", "--json")
    assert code == 1
    document = json.loads(out)
    assert document["schema"] == 1
    assert document["failed"] == 1
    assert {"suite", "scale", "cell", "measure", "state", "why", "seconds", "folder"} == set(document["outcomes"][0])
    assert "[1/" in err


def test_plain_lines_tell_epochs_and_time_left(terminal: Terminal) -> None:
    _, out, _ = terminal.type("run", "demo.yaml")
    assert "[3/12] sparse-0.1  training  epoch 2/2, loss 1.00  (0 s left, " in out
    assert "[12/12] sparse-0.3  latency  done" in out


def test_results_of_a_deleted_cell_are_taken_again(terminal: Terminal) -> None:
    terminal.type("run", "demo.yaml", "--measure", "complexity")
    shutil.rmtree(next(terminal.results.glob("demo/smoke/cells/sparse-0.1-*")))
    terminal.type("run", "demo.yaml", "--measure", "complexity")
    assert terminal.calls == [("sparse-0.1", "complexity")]


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
def test_mistakes_have_their_exit_code(terminal: Terminal, arguments: list[str], code: int, said: str) -> None:
    found, _, err = terminal.type(*arguments)
    assert found == code
    assert said in err
    assert "Traceback" not in err
    assert not terminal.results.exists()


def test_an_internal_error_is_one_line_and_with_debug_a_traceback(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detrbench.run import execute

    def break_down(*_: Any) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(execute, "prepare", break_down)
    code, _, err = terminal.type("run", "demo.yaml")
    assert code == 3
    assert (
        err.strip() == "internal error: ZeroDivisionError: of all things; run it again with --debug for the traceback"
    )
    assert "Traceback" in terminal.type("run", "demo.yaml", "--debug")[2]


def test_a_cell_with_anothers_weights_waits_for_that_training(terminal: Terminal) -> None:
    path = terminal.folder / "demo.yaml"
    borrower = "  - {id: sparser, model: sparse_detr_r50, options: {keep_ratio: 0.05}, weights_of: sparse-0.1}\n"
    path.write_text(path.read_text().replace("  - {id: later", borrower + "  - {id: later"))
    assert terminal.type("run", "demo.yaml", "-k", "sparser", "--measure", "accuracy")[0] == 0
    assert terminal.calls == []
    assert states(terminal, "sparser")["accuracy"] == ("not_measured", "sparse-0.1 is not trained")
    assert terminal.type("run", "demo.yaml", "-k", "sparse", "--measure", "accuracy")[0] == 0
    assert [call for call in terminal.calls if "0.3" not in call[0]] == [
        ("sparse-0.1", "training"),
        ("sparse-0.1", "accuracy"),
        ("sparser", "accuracy"),
    ]


def test_a_limit_reaches_every_cell(terminal: Terminal) -> None:
    from detrbench.run.execute import prepare
    from detrbench.run.work import RunOptions
    from detrbench.suite import loading as suites

    loaded = suites.load("demo.yaml")
    limited, free = (prepare(loaded, RunOptions(results=terminal.results, limit=limit)) for limit in (3, None))
    assert {cell.settings.limit for cell in limited.cells} == {3}
    assert {cell.settings.limit for cell in free.cells} == {None}
