"""Two processes that do something together, for tests of what ranks share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from detrbench.ranks import Ranks
from detrbench.run import processes


class Two:
    """Both processes; each call is made in both, with their ranks in front of the arguments."""

    def __init__(self) -> None:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        context = processes._CONTEXT  # of `--jobs`: PyTorch is imported once for all
        self.store, self.pipes, self.processes = store, [], []
        for rank in range(2):
            ours, theirs = context.Pipe()
            self.pipes.append(ours)
            self.processes.append(context.Process(target=_work, args=(theirs, rank, store.port), daemon=True))
            self.processes[-1].start()

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What both return, or the errors that they raise."""
        for pipe in self.pipes:
            pipe.send((function, arguments))
        return [pipe.recv() for pipe in self.pipes]


@contextlib.contextmanager
def two() -> Iterator[Two]:
    """Both processes, for the block."""
    made = Two()
    try:
        yield made
    finally:
        for process in made.processes:
            process.kill()
            process.join()


def _work(pipe: Any, rank: int, port: int) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    while True:
        function, arguments = pipe.recv()
        try:
            pipe.send(function(Ranks(rank, 2), *arguments))
        except Exception as error:
            pipe.send(error)
