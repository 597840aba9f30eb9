"""Several processes at once: equal figures, nothing done twice, a process that dies takes one step with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from detrbench import yaml12
from detrbench.errors import EnvironmentLacking
from detrbench.results.folder import CellFolder
from detrbench.results.store import ResultsStore
from detrbench.run import execute as runs
from detrbench.run import parent, processes
from detrbench.run.executors.local import Local
from detrbench.run.plan import WorkItem
from detrbench.run.processes import Workers
from detrbench.run.work import Outcome, RunOptions
from detrbench.suite import loading as suites

SUITE = """\
name: demo
title: A demonstration
defaults: {backbone: tiny}
variants:
  - {id: plain, model: deformable_detr_tiny}
  - {id: same, model: deformable_detr_tiny}
  - {id: sparse, model: sparse_detr_tiny}
  - {id: sparser, model: sparse_detr_tiny, options: {keep_ratio: 0.05}, weights_of: sparse}
scales:
  smoke:
    {data: shapes, num_train: 4, num_val: 2, image_size: 64, epochs: 1, batch_size: 2,
     model: {hidden_dim: 64, num_heads: 2, ffn_dim: 32, num_queries: 10, num_encoder_layers: 1, num_decoder_layers: 1}}
measure: [accuracy, memory]
"""


class Told:
    """A listener that keeps what it is told; `on_start` may interfere."""

    def __init__(self, on_start: Any = lambda item: None) -> None:
        self.on_start = on_start
        self.at: list[tuple[str, str, str]] = []
        self.running: set[int] = set()
        self.most = 0

    def begin(self, items: Sequence[WorkItem]) -> None: ...

    def start(self, item: WorkItem) -> None:
        self.at.append(("start", item.cell.id, item.measure))
        self.running.add(id(item))
        self.most = max(self.most, len(self.running))
        self.on_start(item)

    def advance(self, item: WorkItem, fraction: float | None, text: str, milestone: bool = False) -> None:
        assert id(item) in self.running

    def end(self, outcome: Outcome) -> None:
        self.at.append(("end", outcome.item.cell.id, outcome.item.measure))
        self.running.discard(id(outcome.item))

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2, threads=1) as made:
        yield made


def prepare(root: Path, **options: Any) -> runs.PreparedRun:
    return runs.prepare(suites.read(yaml12.parse(SUITE, "demo.yaml")), RunOptions(results=root, **options))


def shown(outcomes: list[Outcome]) -> list[tuple[str, str, str]]:
    return [(outcome.item.cell.id, outcome.item.measure, outcome.state) for outcome in outcomes]


class Shared(NamedTuple):
    """A run that two processes shared."""

    root: Path
    told: Told
    outcomes: list[Outcome]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, workers: Workers) -> Shared:
    root, told = tmp_path_factory.mktemp("shared"), Told()
    return Shared(root, told, runs.execute(prepare(root), told, Local(workers)))


def test_two_processes_find_what_one_finds(tmp_path: Path, shared: Shared) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes
    alone = runs.execute(prepare(tmp_path, measures=("accuracy",)), Told())
    torch.set_num_threads(threads)
    assert [each for each in shown(shared.outcomes) if each[1] != "memory"] == shown(alone)
    assert {state for _, _, state in shown(shared.outcomes)} == {"done"}
    assert shared.told.most == 2
    one, two = (
        {cell.id: cell for cell in ResultsStore(root).cells("demo", "smoke")} for root in (tmp_path, shared.root)
    )
    for id_ in ("plain", "sparse", "sparser"):
        assert one[id_].records["accuracy"] == two[id_].records["accuracy"]
    weights = [load_file(CellFolder(cells["sparse"].folder).weights) for cells in (one, two)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert two["sparse"].envelopes["training"]["environment"]["threads"] == 1


def test_what_needs_another_waits_for_it(shared: Shared) -> None:
    at = shared.told.at
    outcomes = {(o.item.cell.id, o.item.measure): o for o in shared.outcomes}
    assert at.index(("start", "sparser", "accuracy")) > at.index(("end", "sparse", "training"))  # another's weights
    assert str(outcomes["same", "training"].why).startswith("taken for demo/smoke/cells/plain-")  # not trained twice
    assert at.index(("start", "plain", "memory")) > max(
        n for n, (_, _, measure) in enumerate(at) if measure == "accuracy"
    )


def test_a_process_that_dies_takes_one_step_with_it(tmp_path: Path, workers: Workers) -> None:
    def kill(item: WorkItem) -> None:
        if (item.cell.id, item.measure) == ("sparse", "training"):
            (at_it,) = (worker for worker in workers.workers if worker.group and item in worker.group.items.values())
            os.kill(at_it.process.pid, signal.SIGKILL)

    prepared = prepare(tmp_path, measures=("accuracy",))
    outcomes = {(o.item.cell.id, o.item.measure): o for o in runs.execute(prepared, Told(kill), Local(workers))}
    assert outcomes["sparse", "training"].state == "failed"
    assert "killed: out of memory?" in str(outcomes["sparse", "training"].why)
    assert str(outcomes["sparse", "accuracy"].why).startswith("training failed: its process ended")
    assert outcomes["plain", "accuracy"].state == outcomes["same", "accuracy"].state == "done"
    again = runs.execute(prepare(tmp_path, measures=("accuracy",)), Told())
    assert {state for _, _, state in shown(again)} == {"done"}


def test_a_folder_that_cannot_be_written_stops_all(tmp_path: Path) -> None:
    prepared = prepare(tmp_path)
    (tmp_path / "demo/smoke/cells").mkdir(parents=True)
    blocked = next(item.folder for item in prepared.items if item.cell.id == "sparse")
    blocked.status.mkdir(parents=True)  # where its status belongs
    with Workers(2, threads=1) as pair, pytest.raises(EnvironmentLacking, match="cannot be written"):
        runs.execute(prepared, Told(), Local(pair))
    assert not any(worker.process.is_alive() for worker in pair.workers)


def test_nothing_is_started_for_what_is_done(shared: Shared) -> None:
    with Workers(2, threads=1) as pair:
        outcomes = runs.execute(prepare(shared.root), Told(), Local(pair))
        assert pair.workers == []
    assert {state for _, _, state in shown(outcomes)} == {"done"}


def test_what_is_timed_is_left_to_one_process(tmp_path: Path, workers: Workers) -> None:
    prepared = prepare(tmp_path, measures=("accuracy", "memory", "latency"))
    theirs, ours = Local(workers)._share_out(list(runs._groups(prepared.items)))
    assert {item.measure for group in theirs for item in group} == {"training", "accuracy"}
    assert {item.measure for group in ours for item in group} == {"memory", "latency"}
    assert len([group for group in ours if group[0].measure == "latency"]) == 1  # together, so that they interleave


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("cuda", None, ["0", "1", "0"]),
        ("cuda", "3,GPU-5", ["3", "GPU-5", "3"]),
        ("cuda:1", None, [None] * 3),
        ("cpu", None, [None] * 3),
    ],
)
def test_each_process_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str | None, expected: list[str | None]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    given = []

    class Started:
        """In place of a process."""

        def __init__(self, target: Any, args: Any, daemon: bool) -> None:
            given.append(args[2])

        def start(self) -> None: ...

        def is_alive(self) -> bool:
            return True

    monkeypatch.setattr(processes._CONTEXT, "Process", Started)
    made = Workers(3, threads=1)
    for _ in range(3):
        made._free(device).group = processes._Group({}, set())
    assert given == expected
    made.workers[1:2] = []  # one that died
    made._free(device)
    assert given[3] == expected[1]


def test_a_process_sees_the_gpu_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Idle:
        """In place of a pipe over which nothing comes."""

        def recv(self) -> None:
            seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
            raise EOFError

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(processes, "end_with_the_parent", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    processes._work(Idle(), torch.get_num_threads(), "1")  # type: ignore[arg-type]
    assert seen == ["1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_at_work_ends_with_its_parent(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A parent that is killed leaves nobody at work, and no lock; what is in hand is noted as interrupted.

    Whatever it inherits: a shell lets what it starts behind itself (`detrbench run ... &`) ignore one signal.
    """
    monkeypatch.setattr(parent, "_GRACE", 0.1)
    before, (reading, writing) = signal.signal(number, signal.SIG_IGN), os.pipe()
    forks = multiprocessing.get_context("fork")

    class Busy:
        """In place of the pipe from which work comes."""

        def recv(self) -> None:
            os.write(writing, b"busy ")
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                os.write(writing, b"told")
                raise

    def starter() -> None:
        forks.Process(target=processes._work, args=(Busy(), 1, None)).start()
        time.sleep(60)

    at_work = forks.Process(target=starter)
    at_work.start()
    signal.signal(number, before)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        assert told.read(5) == b"busy "
        at_work.kill()
        assert told.read() == b"told"  # ends where the process does, which holds the other end
    at_work.join()
