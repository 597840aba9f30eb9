"""Layers that are booked again instead of run again: the same figures, and nothing taken for what it is not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detrbench import models
from detrbench.measure import counters, repeats
from detrbench.measure.shapes import MetaOutputs
from detrbench.measure.tally import Tally


class Nothing(repeats.Memory, MetaOutputs):
    """Remembers nothing."""

    def get(self, call: Any) -> None:
        return None

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """Runs something while nothing is remembered."""

    def run(function: Callable[[], Any]) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(counters, "MEMORY", Nothing())
            patch.setattr(counters, "META_OUTPUTS", Nothing())
            return function()

    return run


SMALL: dict[str, dict[str, Any]] = {
    "sparse_detr_tiny": {"num_encoder_layers": 2, "num_decoder_layers": 2},
    "focus_detr_tiny": {"num_encoder_layers": 2, "keep_ratios": [0.5, 0.3], "num_decoder_layers": 2},
    "salience_detr_tiny": {"num_encoder_layers": 2, "layer_ratios": [1.0, 0.5], "num_decoder_layers": 2},
    "lite_dino_tiny": {"blocks": 2, "num_decoder_layers": 2},
    "dn_deformable_detr_tiny": {"num_encoder_layers": 2, "num_decoder_layers": 2},
    "dino_swin_t": {"num_encoder_layers": 2, "num_decoder_layers": 2},
}
WHOLE = [pytest.param(name, {}, marks=pytest.mark.full, id=name) for name in models.names()]


QUICK = ("sparse_detr_tiny", "focus_detr_tiny")
CASES = [pytest.param(*case, marks=() if case[0] in QUICK else pytest.mark.full) for case in SMALL.items()]


@pytest.mark.parametrize(("name", "options"), [*CASES, *WHOLE])
def test_detectors_are_counted_as_if_they_were_run_whole(
    name: str, options: dict[str, Any], whole: Callable[[Callable[[], Any]], Any]
) -> None:
    with torch.device("meta"):
        detector = models.create(name, **options).eval()
    sizes = [(256, 320), (300, 256)]
    for outputs in ("all", "final") if not options else ("all",):
        remembered = counters.counts(detector, sizes, outputs)
        alone = whole(functools.partial(counters.counts, detector, sizes, outputs))
        assert remembered == alone
        # Sums of floats depend on their order, so that has to be the same too.
        assert [list(tally.units) for tally in remembered.values()] == [list(tally.units) for tally in alone.values()]


class Scaled(nn.Module):
    """Two products, the second with as many columns as it is told."""

    def __init__(self, width: int = 4, columns: int = 4, between: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.between = between or nn.Linear(width, width)
        self.columns = columns

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.between(self.first(x))
        if x is y or y.shape == x.shape:
            x = x + y
        return x @ x.new_zeros(x.shape[-1], self.columns)


class Weighs(nn.Module):
    """Nothing but the shape of its parameter tells how much it does."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, columns))
        self.behind = nn.Identity()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.behind(x @ self.weight)


class Chain(nn.Module):
    def __init__(self, *layers: nn.Module, call: Callable[[nn.Module, Tensor], Any] | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.call = call or (lambda layer, x: layer(x, x.new_zeros(3)))

    def forward(self, x: Tensor) -> None:
        for layer in self.layers:
            self.call(layer, x)


def work(chain: nn.Module, dtype: torch.dtype = torch.float32) -> Tally:
    counter = counters.OperationCounter(chain.to("meta"))
    with torch.no_grad(), counter.watching() as tally:
        chain(torch.zeros(5, 4, device="meta", dtype=dtype))
    return tally


def by_layer(tally: Tally) -> list[int]:
    layers: dict[str, int] = {}
    for (scope, _, kind), units in tally.units.items():
        if kind == "matmul":
            layers[scope[0]] = layers.get(scope[0], 0) + units
    return list(layers.values())


def test_a_repeated_layer_is_booked_under_its_own_name_without_being_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    real = Scaled.forward

    def forward(self: Scaled, x: Tensor, y: Tensor) -> Tensor:
        runs.append(self)
        return real(self, x, y)

    monkeypatch.setattr(Scaled, "forward", forward)
    tally = work(Chain(Scaled(), Scaled(), Scaled()))
    assert len(runs) == 1
    assert by_layer(tally) == [240, 240, 240]
    within = {scope for scope, operator, _ in tally.units if operator == "aten::addmm"}
    assert within == {(f"layers.{i}", f"layers.{i}.{name}") for i in range(3) for name in ("first", "between")}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((Scaled(), Scaled(width=8)), [240, 160 + 320 + 160]),
        ((Scaled(), Scaled(columns=2)), [240, 200]),
        ((Scaled(), Scaled(between=nn.Identity())), [240, 160]),
        ((Scaled().train(), Scaled().eval()), [240, 240]),
        ((Weighs(4), Weighs(8)), [80, 160]),
    ],
)
def test_layers_that_differ_are_not_taken_for_each_other(layers: tuple[nn.Module, ...], expected: list[int]) -> None:
    assert by_layer(work(Chain(*layers))) == expected


def test_other_shapes_types_and_arguments_are_another_call() -> None:
    layer, calls = Scaled(), []

    def call(layer: nn.Module, x: Tensor) -> None:
        calls.extend([layer(x, x), layer(x, torch.zeros_like(x)), layer(x[:2], x), layer(x, y=x[:, :2])])

    tally = work(Chain(layer, call=call))
    adds = sum(units for (_, operator, _), units in tally.units.items() if operator == "aten::add")
    assert adds == 2 * 20
    assert [tuple(out.shape) for out in calls] == [(5, 4), (5, 4), (2, 4), (5, 4)]


class Twice(nn.Module):
    """Does other work where it is given the same tensor twice, as `nn.MultiheadAttention` does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.linear(x) if x is y else self.linear(x) + self.linear(y)


def test_one_tensor_twice_is_not_two_of_a_shape() -> None:
    def call(layer: nn.Module, x: Tensor) -> None:
        layer(x, x)
        layer(x, torch.zeros_like(x))

    assert by_layer(work(Chain(Twice(), call=call))) == [3 * 80]


class Shares(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_a_child_that_is_shared_is_not_two_children() -> None:
    shared = nn.Linear(4, 4)
    tally = work(Chain(Shares(nn.Linear(4, 4), nn.Linear(4, 4)), Shares(shared, shared)))
    assert {scope[-1] for scope, operator, _ in tally.units if operator == "aten::addmm"} == {
        "layers.0.first",
        "layers.0.second",
        "layers.1.first",
    }


class Remembers(Scaled):
    """Leaves something in what it is given."""

    def forward(self, x: Tensor, y: list[int]) -> Tensor:  # type: ignore[override]
        y.append(len(y))
        return super().forward(x, x)


def test_a_layer_that_changes_its_arguments_always_runs() -> None:
    notes: list[int] = []

    def call(layer: nn.Module, x: Tensor) -> None:
        layer(x, [])
        layer(x, notes)
        layer(x, notes)

    work(Chain(Remembers(), Remembers(), call=call))
    assert notes == [0, 1, 2, 3]


def test_a_detector_is_left_as_it_was() -> None:
    chain = Chain(Scaled(), Scaled())
    before = [dict(vars(module)) for module in chain.modules()]
    work(chain)
    assert [dict(vars(module)) for module in chain.modules()] == before
