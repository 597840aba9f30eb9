"""`run --executor slurm`, from what is typed to what the results folder holds, on a Slurm that exists on paper."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from paper_slurm import Killed, PaperSlurm
from terminal import Terminal

from detrbench import environment, renamed
from detrbench.results import locks
from detrbench.results.folder import CellFolder
from detrbench.run.executors import job, slurm
from detrbench.run.executors.told import Teller

RUN = ("run", "demo.yaml", "--executor", "slurm", "--slurm", "time=60,partition=gpu")
SUITE = """\
name: demo
title: A demonstration
defaults: {backbone: tiny}
variants:
  - {id: own, model: sparse_detr_r50}
  - {id: same, model: sparse_detr_r50}
  - {id: other, model: deformable_detr_tiny}
  - {id: borrowed, model: sparse_detr_r50, options: {keep_ratio: 0.1}, weights_of: own}
scales:
  smoke: {data: shapes, num_train: 4, num_val: 2, image_size: 64, epochs: 2}
measure: [complexity, accuracy, latency, memory]
"""


def interrupt() -> None:
    """Ctrl-C while jobs are in the queue."""
    raise KeyboardInterrupt


@pytest.fixture
def paper(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> PaperSlurm:
    (terminal.folder / "demo.yaml").write_text(SUITE)
    made = PaperSlurm(terminal.folder / "slurm", terminal.results / "demo" / "smoke" / "jobs")
    made.install(monkeypatch)
    return made


def status_of(terminal: Terminal, cell: str) -> dict[str, str]:
    (path,) = terminal.results.glob(f"demo/smoke/cells/{cell}-*")
    return {measure: entry["state"] for measure, entry in CellFolder(path).read_status()["measures"].items()}


def once(cell: str, measure: str, what: type[BaseException], times: int = 1) -> Any:
    """A step that goes wrong so many times."""
    left = [times]

    def before(at_cell: str, at_measure: str) -> None:
        if (at_cell, at_measure) == (cell, measure) and left[0]:
            left[0] -= 1
            raise what

    return before


def test_each_cell_is_a_job_and_what_is_timed_one_more(terminal: Terminal, paper: PaperSlurm) -> None:
    code, out, err = terminal.type(*RUN, "--jobs", "1", "--slurm", "nodelist=n1,n2")
    assert (code, paper.submitted, paper.queue) == (0, 3, {}), err
    assert len([call for call in terminal.calls if call[1] == "training"]) == 2  # `same` takes over what `own` has
    assert "--name detrbench-" in (paper.folder / "asked").read_text()
    cells, others, timed = (paper.script(number) for number in (1, 2, 3))
    for line in ("--array=0-1%1", "--partition=gpu", "--nodelist=n1,n2", "--time=60", "--requeue", "--signal=USR2@90"):
        assert f"#SBATCH {line}\n" in cells
    assert "--array=0-1%1\n" in others  # `same` and `borrowed` wait for `own`
    assert "--dependency=afterok:1_0\n" in others
    assert "--exclusive" not in cells + others
    assert "#SBATCH --exclusive\n" in timed
    assert "--dependency=afterok:1_0,afterok:2_0,afterok:1_1,afterok:2_1\n" in timed
    assert terminal.calls[-1] == ("own same other borrowed", "latency")
    assert set(status_of(terminal, "borrowed").values()) == {"done"}
    assert "own  training  epoch 2/2, loss 1.00  (" in out
    assert "own  accuracy  done" in out


def test_it_leaves_what_a_local_run_leaves(terminal: Terminal, paper: PaperSlurm) -> None:
    terminal.type(*RUN)
    local = ("run", "demo.yaml", "--results", "local")
    assert terminal.type(*local)[0] == 0
    ours, theirs = (
        {
            path.relative_to(root): json.loads(path.read_text())["key"]
            for path in root.glob("demo/smoke/cells/*/*y.json")
        }
        for root in (terminal.folder / "local", terminal.results)
    )
    assert ours == theirs
    assert len(ours) == 16


def test_what_is_done_is_not_submitted(terminal: Terminal, paper: PaperSlurm) -> None:
    terminal.type(*RUN)
    before = paper.submitted
    code, _, err = terminal.type(*RUN)
    assert (code, paper.submitted, terminal.calls) == (0, before, [])
    assert "0 to do; 19 done" in err


def test_what_another_machine_has_timed_is_done(
    terminal: Terminal, paper: PaperSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that submits is not the one that times."""
    there = {"torch": "test", "cores": 64}
    with monkeypatch.context() as patch:
        patch.setattr(paper, "turn", lambda: (patch.setattr(environment, "capture", lambda: there), paper.run_next()))
        terminal.type(*RUN)
    (record,) = terminal.results.glob("demo/smoke/cells/own-*/latency.json")
    assert json.loads(record.read_text())["environment"] == there
    before = paper.submitted
    code, out, err = terminal.type(*RUN)
    assert (code, paper.submitted) == (0, before), err
    assert "own  latency  done: timed on another machine" in out
    terminal.type("run", "demo.yaml")
    assert ("own", "memory") in terminal.calls  # which is not this machine


def test_a_killed_job_is_submitted_again_with_those_that_wait_for_it(terminal: Terminal, paper: PaperSlurm) -> None:
    terminal.before = once("own", "accuracy", Killed)
    code, _, err = terminal.type(*RUN)
    assert code == 0, err
    assert terminal.calls.count(("own", "training")) == 1  # done before the kill
    assert terminal.calls.count(("own", "accuracy")) == 2
    assert {"2_0", "2_1", "3"} == set(paper.cancelled)  # they waited for the job that is gone
    assert set(status_of(terminal, "borrowed").values()) == {"done"}


def test_a_job_waits_for_the_lock_of_a_killed_one_on_another_machine(
    terminal: Terminal, paper: PaperSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_LOOK", 0.05)
    elsewhere = dataclasses.replace(locks.Owner.here(), host="elsewhere")

    def begin() -> None:
        (folder,) = terminal.results.glob("demo/smoke/cells/own-*")
        (folder / ".lock-1").write_text(json.dumps(dataclasses.asdict(elsewhere)))
        almost = time.time() - locks.SILENCE + 0.5
        os.utime(folder / ".lock-1", (almost, almost))
        paper.turn = paper.run_next
        paper.turn()

    paper.turn = begin
    code, _, err = terminal.type(*RUN, "--measure", "accuracy", "-k", "own")
    assert code == 0, err
    assert terminal.calls == [("own", "training"), ("own", "accuracy")]


def test_a_job_that_is_killed_each_time_fails_and_the_others_go_on(terminal: Terminal, paper: PaperSlurm) -> None:
    terminal.before = once("own", "training", Killed, times=9)
    code, _, err = terminal.type(*RUN, "--measure", "accuracy")
    assert code == 1
    assert terminal.calls.count(("own", "training")) == slurm.TRIES
    assert "own training: its job was killed 3 times: out of memory?" in err
    assert status_of(terminal, "own") == {"training": "failed", "accuracy": "failed"}
    assert set(status_of(terminal, "other").values()) == {"done"}
    assert set(status_of(terminal, "same").values()) == {"done"}  # it trains for itself


def test_a_preempted_job_is_requeued_and_goes_on(terminal: Terminal, paper: PaperSlurm) -> None:
    terminal.before = once("own", "accuracy", SystemExit)
    code, _, err = terminal.type(*RUN, "--measure", "accuracy", "-k", "own")
    assert (code, paper.submitted) == (0, 1), err
    assert terminal.calls == [("own", "training"), ("own", "accuracy"), ("own", "accuracy")]


def test_an_interrupted_command_leaves_its_jobs_and_finds_them_again(terminal: Terminal, paper: PaperSlurm) -> None:
    paper.turn = interrupt
    code, _, err = terminal.type(*RUN)
    assert code == 130
    assert "the jobs go on" in err
    assert len(paper.queue) == 5
    paper.turn = lambda: None
    paper.run_next()
    assert terminal.calls[-1] == ("own", "accuracy")
    paper.turn = paper.run_next
    before = paper.submitted
    code, _, err = terminal.type(*RUN)
    assert (code, paper.submitted, paper.cancelled) == (0, before, []), err
    assert ("own", "training") not in terminal.calls
    assert set(status_of(terminal, "borrowed").values()) == {"done"}


def test_jobs_that_wait_in_vain_are_found_and_submitted_again(terminal: Terminal, paper: PaperSlurm) -> None:
    """The command was not there when the job that they wait for was killed."""
    paper.turn = interrupt
    terminal.type(*RUN, "--measure", "accuracy")
    terminal.before = once("own", "training", Killed)
    paper.run("1_0")
    paper.run_next()
    paper.turn = paper.run_next
    code, _, err = terminal.type(*RUN, "--measure", "accuracy")
    assert code == 0, err
    assert set(status_of(terminal, "borrowed").values()) == {"done"}


def test_a_cancelled_job_is_not_submitted_again(terminal: Terminal, paper: PaperSlurm) -> None:
    terminal.before = once("own", "training", KeyboardInterrupt)
    code, _, err = terminal.type(*RUN, "--measure", "accuracy", "-k", "own")
    assert (code, paper.submitted) == (1, 1)
    assert "interrupted: its job was cancelled" in err
    assert terminal.type(*RUN, "--measure", "accuracy", "-k", "own")[0] == 0


def test_a_job_that_never_began_is_told_with_its_log(terminal: Terminal, paper: PaperSlurm) -> None:
    paper.turn = lambda: paper.end("1", well=False)
    code, _, err = terminal.type(*RUN, "--measure", "accuracy", "-k", "own")
    assert (code, paper.submitted) == (1, 1)
    assert "its job ended before it began" in err
    assert "1_0_log.err" in err


def test_what_stops_a_job_is_told(terminal: Terminal, paper: PaperSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no such library")

    monkeypatch.setattr("detrbench.run.executors.job.work.do", broken)
    code, _, err = terminal.type(*RUN, "--measure", "accuracy", "-k", "own")
    assert code == 1
    assert "OSError: no such library" in err


def test_other_measures_wait_for_the_job_that_is_at_the_cell(terminal: Terminal, paper: PaperSlurm) -> None:
    paper.turn = interrupt
    terminal.type(*RUN, "--measure", "complexity", "-k", "own")
    paper._list("1", "RUNNING", "None")
    terminal.type(*RUN, "--measure", "complexity,accuracy", "-k", "own")
    assert "--dependency=afterany:1\n" in paper.script(2)


def test_a_slurm_that_does_not_answer_is_waited_for_and_given_up(
    terminal: Terminal, paper: PaperSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_down() -> None:
        (paper.folder / "down").touch()

    paper.turn = go_down
    monkeypatch.setattr(slurm, "PATIENCE", 0.1)
    code, _, err = terminal.type(*RUN, "-k", "own", "--measure", "accuracy")
    assert code == 4
    assert "Slurm does not answer" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--slurm", "partition=a"), "--slurm goes with --executor slurm"),
        (("--executor", "slurm"), "--slurm: time is missing"),
        (("--executor", "slurm", "--slurm", "time=soon"), "--slurm time=soon: expected minutes, H:M:S or D-H:M:S"),
        (("--executor", "slurm", "--slurm", "time"), "--slurm time: expected NAME=VALUE"),
        (("--executor", "slurm", "--slurm", "time=1,output=x"), "--slurm output: detrbench sets it"),
        (("--executor", "slurm", "--slurm", "time=1,nodes=2"), "--slurm nodes=2 with --gpus 1: expected as many"),
        (("--executor", "slrum"), "unknown executor 'slrum'"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_one_line(
    terminal: Terminal, paper: PaperSlurm, arguments: tuple[str, ...], says: str
) -> None:
    code, _, err = terminal.type("run", "demo.yaml", *arguments)
    assert (code, paper.submitted) == (2, 0)
    assert says in err


def test_a_refusal_is_passed_on(terminal: Terminal, paper: PaperSlurm) -> None:
    (paper.folder / "refuses").write_text("sbatch: error: invalid partition specified: gpu\n")
    code, _, err = terminal.type(*RUN, "-k", "own")
    assert code == 2
    assert "sbatch refuses: sbatch: error: invalid partition specified: gpu" in err


def test_a_machine_without_slurm_is_told(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, err = terminal.type(*RUN)
    assert code == 4
    assert "this machine has no squeue" in err


def test_many_processes_are_tasks_of_one_job(terminal: Terminal, paper: PaperSlurm) -> None:
    paper.turn = interrupt
    given = ("--slurm", "time=1-12,nodes=2,gpus_per_node=2", "--gpus", "4", "-s", "micro_batch=1")
    code, _, err = terminal.type("run", "demo.yaml", "--executor", "slurm", *given)
    assert (code, paper.submitted) == (130, 3), err
    for line in ("--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2", "--time=2160"):
        assert f"#SBATCH {line}\n" in paper.script(1)
    (note,) = paper.jobs.glob("own-*.json")
    from submitit.core.utils import DelayedSubmission

    kept = DelayedSubmission.load(paper.jobs / f"{json.loads(note.read_text())['job']}_submitted.pkl").function
    assert (kept.options.device, kept.options.gpus) == ("cuda", 4)
    assert kept.options.results.is_absolute()


def test_status_tells_what_runs_where(terminal: Terminal, paper: PaperSlurm) -> None:
    seen = []

    def look() -> None:
        (folder,) = terminal.results.glob("demo/smoke/cells/own-*")
        seen.append(locks.owner(folder))
        code, out, err = terminal.type("status", "--json")
        assert code == 0, err
        seen.append(json.loads(out))
        raise KeyboardInterrupt

    calls = terminal.calls
    terminal.before = lambda cell, measure: look() if measure == "accuracy" else None
    terminal.type(*RUN, "--measure", "accuracy")
    assert calls is terminal.calls
    owner, told = seen[:2]
    assert (owner.job, owner.process) == ("1_0", os.getpid())
    running, *queued = told["activities"]
    assert (running["cell"], running["measure"], running["state"]) == ("own", "accuracy", "running")
    assert running["where"] == f"{owner.host}, job 1_0"
    assert {(each["state"], each["where"]) for each in queued} >= {("queued", "job 1_1"), ("queued", "job 2_0")}
    assert told["suites"][0]["measures"]["running"] == 1
    (path,) = terminal.results.glob("demo/smoke/cells/own-*")
    CellFolder(path).set_state("own", "accuracy", "running")
    assert "stopped" in terminal.type("status")[1]


def test_further_seeds_are_jobs_of_their_own_and_have_a_status(terminal: Terminal, paper: PaperSlurm) -> None:
    code, _, err = terminal.type(*RUN, "--measure", "accuracy", "-k", "other", "-s", "seeds=2")
    assert code == 0, err
    assert "--array=0-1%2\n" in paper.script(1)
    assert [cell for cell, measure in terminal.calls if measure == "training"] == ["other", "other#1"]
    (path,) = (path for path in terminal.results.glob("demo/smoke/cells/other*") if "1-" in path.name[:8])
    CellFolder(path).set_state("other#1", "accuracy", "running")
    (activity,) = json.loads(terminal.type("status", "--json")[1])["activities"]
    assert (activity["cell"], activity["state"]) == ("other#1", "stopped")


def test_a_plug_in_does_the_work(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that docs/slurm.md shows."""
    from detrbench.run import executors

    page = (Path(__file__).parents[2] / "docs" / "slurm.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    (terminal.folder / "plugged_in.py").write_text(code)
    monkeypatch.syspath_prepend(terminal.folder)
    entry = EntryPoint("ours", "plugged_in:opened", "detrbench.executors")
    monkeypatch.setattr(executors, "entry_points", lambda group: [entry] if group == entry.group else [])
    code, out, err = terminal.type("run", "demo.yaml", "--executor", "ours", "-k", "sparse")
    assert code == 0, err
    assert "7 groups for cpu" in out
    assert ("sparse-0.1 sparse-0.3", "latency") in terminal.calls


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("90", 90), ("90:30", 90), ("1:30:00", 90), ("1-12", 2160), ("1-12:30", 2190), ("1-12:30:15", 2190)],
)
def test_times_are_read_as_slurm_reads_them(time: str, minutes: int) -> None:
    assert slurm.minutes(time) == minutes


@pytest.mark.parametrize(
    ("asked", "settings", "device"),
    [("auto", "time=1", "cpu"), ("auto", "gpus_per_node=1", "cuda"), ("auto", "gres=gpu:a100:1", "cuda"),
     ("auto", "gres=tmpfs:1", "cpu"), ("cuda", "time=1", "cuda"), ("cpu", "gpus=1", "cpu")],
)  # fmt: skip
def test_the_device_is_that_of_the_jobs(asked: str, settings: str, device: str) -> None:
    assert slurm.pick_device(asked, slurm.parse([settings])) == device


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    from detrbench.run.executors.told import Told

    told = Told(tmp_path / "told.jsonl")
    assert told.news() == []
    Teller(told.path).leave("finished")
    whole = told.path.read_text()
    told.path.write_text(whole + whole[:10])
    assert [line["why"] for line in told.news()] == ["finished"]
    told.path.write_text(whole + whole)
    assert [line["why"] for line in told.news()] == ["finished"]
    assert told.news() == []


def test_a_training_writes_a_line_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass
    class Item:
        name: str = "cell/training"

    now = [100.0]
    monkeypatch.setattr("detrbench.run.executors.told.time.monotonic", lambda: now[0])
    teller = Teller(tmp_path / "told.jsonl")
    teller.start(Item())  # type: ignore[arg-type]
    for step in range(100):
        now[0] += 1.0
        teller.advance(Item(), step / 100, f"step {step}", milestone=step == 5)  # type: ignore[arg-type]
    assert len((tmp_path / "told.jsonl").read_text().splitlines()) == 1 + 1 + 9


def test_jobs_of_a_renamed_suite_lie_beside_its_cells(
    terminal: Terminal, paper: PaperSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(renamed.CURRENT, "former", "demo")
    monkeypatch.setitem(renamed.FORMER, "demo", "former")
    assert terminal.type(*RUN, "--measure", "complexity", "-k", "other")[0] == 0
    paper.jobs = Path("results/demo").rename("results/former").resolve() / "smoke/jobs"
    assert terminal.type(*RUN, "--measure", "accuracy", "-k", "other")[0] == 0
    assert [path.name for path in Path("results").iterdir()] == ["former"]
    assert "done" in terminal.type("status")[1]
