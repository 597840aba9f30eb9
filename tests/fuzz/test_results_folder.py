"""A results folder through anything that may happen to it: no stale figure, none lost, none taken twice for nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from world import RATIOS, World

from detrbench.results import folder as results_folder
from detrbench.results.store import ResultsStore

Figure = tuple[str, str, int]  # row, measure, and the figure that it has to be


class ResultsFolder(RuleBasedStateMachine):
    """`kept` are the figures that lie whole in the folder, as far as that is known: taking one again is a fault.

    A file that was removed or damaged may have been any: then nothing is known until all has been run once more.
    """

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.kept: set[Figure] = set()
        self.sure = True

    def teardown(self) -> None:
        self.world.close()

    def wanted(self, row: str | None = None) -> set[Figure]:
        rows = [row] if row else self.world.suite.rows
        return {(each, measure, value) for each in rows for measure, value in self.world.suite.of(each).items()}

    # ------------------------------------------------------------------------------------------------ what is done

    @rule()
    def run(self) -> None:
        self._run_all()

    def _run_all(self) -> None:
        code, taken, err = self.world.run()
        if not self.sure and code == 1:  # damaged weights are found where they are read, and made anew by the next run
            assert "damaged" in err, err
            code, taken, err = self.world.run()
        assert code == 0, err
        self._hold(taken, self.wanted())
        assert {(row, m, f) for row, m, _, f in self.world.planned()} == self.wanted()
        assert {state for _, _, state, _ in self.world.planned()} == {"done"}
        assert self.world.run()[:2] == (0, []), "something is taken that is there"
        self.sure = True

    @rule(pick=st.integers(0, 3))
    def run_a_row(self, pick: int) -> None:
        row = self.world.suite.rows[pick % len(self.world.suite.rows)]
        code, taken, err = self.world.run("-k", row)
        assert code == 0 or (code == 1 and not self.sure), err
        if code == 0:
            self._hold(taken, self.wanted(row))

    @rule(at=st.integers(0, 5))
    def run_and_be_killed(self, at: int) -> None:
        self.world.steps.unlink(missing_ok=True)
        status = os.waitpid(self.world.apart(killed_at=at), 0)[1]
        ended = os.waitstatus_to_exitcode(status)
        assert ended in (-signal.SIGKILL, 0) or (ended == 1 and not self.sure)
        done = set(self.world.taken())
        self._hold(self.world.taken(), {each for each in self.wanted() if each[:2] in done})

    @rule(at=st.integers(0, 3))
    def run_and_be_interrupted(self, at: int) -> None:
        left = iter(range(at))

        def before(row: str, measure: str) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        self.world.before = before
        code, taken, err = self.world.run()
        self.world.before = lambda row, measure: None
        assert code in (0, 130) or (code == 1 and not self.sure), err
        self._hold(taken, {each for each in self.wanted() if each[:2] in set(taken)})

    @rule()
    def run_twice_at_once(self) -> None:
        self.world.steps.unlink(missing_ok=True)
        children = [self.world.apart() for _ in range(2)]
        codes = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
        assert codes <= {0, 1}, codes
        taken = self.world.taken()
        self._hold(taken, {each for each in self.wanted() if each[:2] in set(taken)})

    def _hold(self, taken: list[tuple[str, str]], wanted: set[Figure]) -> None:
        """Nothing is taken twice, or again; what is wanted is kept from now on."""
        assert len(set(taken)) == len(taken), f"taken twice: {taken}"
        again = {each for each in self.kept if each[:2] in set(taken) and each in self.wanted()}
        assert not again, f"taken again: {again}"
        rows = {row for row, _, _ in wanted}
        now = self.wanted()
        self.kept = {each for each in self.kept if each[0] not in rows or each in now} | wanted

    # ----------------------------------------------------------------------------------------------- what happens

    @rule(ratios=st.sets(st.sampled_from(RATIOS), min_size=1))
    def edit_the_rows(self, ratios: set[float]) -> None:
        self.world.suite.ratios = tuple(sorted(ratios))
        self.world.write_suite()

    @rule(epochs=st.integers(1, 3))
    def edit_the_recipe(self, epochs: int) -> None:
        self.world.suite.epochs = epochs
        self.world.write_suite()

    @rule(split=st.sampled_from(["train", "val"]), version=st.integers(0, 2))
    def change_the_data(self, split: str, version: int) -> None:
        setattr(self.world.suite, split, version)
        self.world.write_data(split)

    @rule(version=st.integers(0, 2))
    def change_the_weights(self, version: int) -> None:
        self.world.suite.weights = version
        self.world.write_weights()

    @rule(days=st.integers(-400, 400))
    def set_another_clock(self, days: int) -> None:
        self.world.patch.setattr(results_folder, "_now", lambda: f"20{26 + days // 100}-01-01T00:00:00.000000+00:00")

    @precondition(lambda self: self.world.files())
    @rule(pick=st.integers(0, 1000))
    def remove_a_file(self, pick: int) -> None:
        files = self.world.files()
        files[pick % len(files)].unlink()
        self._unsure()

    @precondition(lambda self: self.world.files())
    @rule(
        pick=st.integers(0, 1000),
        how=st.sampled_from(["cut", "flip", "empty", "other", "json"]),
        at=st.integers(0, 500),
    )
    def damage_a_file(self, pick: int, how: str, at: int) -> None:
        path = self.world.files()[pick % len(self.world.files())]
        content = path.read_bytes()
        at = min(at, max(len(content) - 1, 0))
        damage: dict[str, Callable[[], bytes]] = {
            "cut": lambda: content[:at],
            "flip": lambda: content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] if content else b"x",
            "empty": lambda: b"",
            "other": lambda: b"\x00\xff" * 30,
            "json": lambda: b'{"schema": 1, "key": 3, "records": [], "measures": []}',
        }
        path.write_bytes(damage[how]())
        self._unsure()

    def _unsure(self) -> None:
        self.kept, self.sure = set(), False

    # ------------------------------------------------------------------------------------------------ what must hold

    @invariant()
    def no_figure_is_stale_or_lost(self) -> None:
        """What a plan holds for done is what suite, data and weights of now give, and all that was kept is among it."""
        planned = list(self.world.planned())
        found = {(row, measure, figure) for row, measure, state, figure in planned if state in ("done", "reused")}
        now = self.wanted()
        assert found <= now, f"stale: {found - now}"
        assert {each for each in self.kept if each in now} <= found

    @invariant()
    def it_can_be_read(self) -> None:
        """Whatever lies there, the folder is read without an error, and names only rows that were run."""
        store = ResultsStore(self.world.folder / "results", lambda line: None)
        for suite, scale in store.suites():
            assert {cell.id for cell in store.cells(suite, scale)} <= {*(f"row-{ratio}" for ratio in RATIOS), "own"}


@pytest.mark.parametrize(
    ("examples", "steps"), [pytest.param(2, 8, id="few"), pytest.param(40, 12, id="many", marks=pytest.mark.full)]
)
def test_results_folder(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        ResultsFolder,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=examples < 10,
            suppress_health_check=list(HealthCheck),
        ),
    )
