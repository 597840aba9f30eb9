"""A detector in another interpreter is measured as it is here: cost, detections, memory, time; one worker does all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import own_detector
import pytest
import torch
from torch import nn

from detrbench.data import open_dataset
from detrbench.data.spec import DataSpec
from detrbench.data.transforms import Stretch
from detrbench.errors import EnvironmentLacking
from detrbench.external import loading, remote, sources
from detrbench.external.detector import Adapted, ExternalDetector
from detrbench.external.interpreter import Worker, WorkerFailed
from detrbench.external.remote import Remote
from detrbench.measure import accuracy, complexity, latency, memory, protocols, timing
from detrbench.measure.inputs import Inputs
from detrbench.worker.building import Built

SOURCE = sources.parse(own_detector.SOURCE)


def worker_of(detector: Adapted) -> Worker:
    there = remote.of(detector)
    assert there is not None
    return there.worker


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Adapted, Adapted]]:
    """The detector here, and in a worker, with the same weights."""
    folder = own_detector.write(tmp_path_factory.mktemp("own"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        here = loading.load(SOURCE, {}, seed=3)
        torch.save(here.module.state_dict(), folder / "weights.pth")
        yield here, loading.load(SOURCE, {"words": "built"}, 5, folder / "weights.pth", sys.executable, 60.0)
    del sys.modules[own_detector.MODULE]


def test_it_detects_the_same(both: tuple[Adapted, Adapted]) -> None:
    data = open_dataset(DataSpec(kind="shapes", num_train=1, num_val=2, image_size=96), "val")
    assert isinstance(both[1].external.native, Stretch)
    found: list[Any] = []
    for detector in both:
        rules = [protocols.get("accuracy")]
        native = detector.external.native
        found.append(accuracy.collect(detector, data, rules, transform=native)["common"].results())
    assert len(found[0]) == 2 * 96
    assert found[0] == found[1]


def test_its_forward_takes_the_same_memory(both: tuple[Adapted, Adapted]) -> None:
    rule = protocols.get("memory").at(64, 64)
    here, there = (memory.measure(each, rule, training=False) for each in both)
    assert here.forward_mib == there.forward_mib > 0
    assert there.process_peak_mib > 50
    assert there.training_step_mib is None


def test_it_is_timed_beside_others_and_by_part(both: tuple[Adapted, Adapted]) -> None:
    rule = protocols.get("latency").at(64, 64, rounds=3)
    records = latency.measure(dict(zip(("here", "there"), both)), rule)
    assert records["here"].session == records["there"].session
    assert len(records["there"].samples_ms) == 3
    assert set(records["there"].by_part_ms) == {"backbone", "heads", "other"}
    assert 0 < records["there"].median_ms.value < 1000
    with pytest.raises(EnvironmentLacking, match=r"torch\.compile"):
        timing.try_mode(both[1], protocols.get("latency", "compiled").at(64, 64))


def test_what_it_cannot_do_is_one_line_and_it_goes_on(both: tuple[Adapted, Adapted]) -> None:
    there = both[1].module
    with pytest.raises(WorkerFailed, match="RuntimeError: ") as failed:
        there(torch.zeros(1, 5, 32, 32))
    assert "\n" not in failed.value.message
    assert "built" in failed.value.details
    assert there(torch.zeros(1, 3, 32, 32)) is not None


def test_in_the_end_it_counts_as_much(both: tuple[Adapted, Adapted]) -> None:
    """In the end, for to count a detector takes it to the meta device."""
    common, native = (protocols.get("complexity", name) for name in ("common", "native"))
    for rule in (common.on(Inputs.single(50, 70)), native):
        here, there = (complexity.measure(lambda each=each: each, rule) for each in both)
        del here.uncounted["aten::zeros"]  # the image itself
        assert vars(here) == vars(there)
        assert here.gflops_by_part["heads"] > 0
        assert "multiples of 32" in there.convention


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        (
            own_detector.MODULE + ":build",
            {"depth": 3},
            r"TypeError: build\(\) got an unexpected keyword argument 'depth'",
        ),
        (own_detector.MODULE + ":signal", {}, "TypeError: 'module' object is not callable"),
        (own_detector.MODULE + ":nothing", {}, "AttributeError: .* has no attribute 'nothing'"),
        (
            "types:SimpleNamespace",
            {},
            "expected a torch.nn.Module, or an object with one as `module`, got SimpleNamespace",
        ),
    ],
)
def test_what_cannot_be_built_there_is_one_line(
    both: tuple[Adapted, Adapted], name: str, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(WorkerFailed, match=why):
        Remote(worker_of(both[1]), name, options, 0, None)


def test_at_the_very_end_one_that_hangs_is_named_and_killed(both: tuple[Adapted, Adapted]) -> None:
    worker, here = worker_of(both[1]), loading.load(SOURCE, {})
    hanging = Remote(worker, f"{own_detector.MODULE}:build", {"hangs_at": 96}, 0, None)
    worker.patience = 0.3
    there = Adapted(ExternalDetector(hanging), "hanging")
    with pytest.raises(timing.CannotBeTimed) as failed:
        latency.measure({"here": here, "there": there}, protocols.get("latency").at(64, 96, rounds=1))
    assert failed.value.name == "there"
    assert "did not answer within 0.005 minutes" in str(failed.value.error)
    assert not worker.end.alive


@pytest.mark.parametrize(
    ("said", "native"),
    [
        (SimpleNamespace(shortest=80, longest=None), {"shortest": 80, "longest": None}),
        ({"height": 64, "width": 96, "mean": (0.0, 0.0, 0.0)}, {"height": 64, "width": 96, "mean": [0.0, 0.0, 0.0]}),
        (None, None),
    ],
)
def test_a_size_is_said_by_attributes_or_keys(said: Any, native: Any) -> None:
    assert Built(SimpleNamespace(module=nn.Identity(), native=said)).native == native


@pytest.mark.parametrize("said", [(640, 640), {"size": 640}, SimpleNamespace(height=640)])
def test_a_size_that_nobody_understands_is_refused(said: Any) -> None:
    with pytest.raises(ValueError, match="native: expected shortest and longest, or height and width, got"):
        Built(SimpleNamespace(module=nn.Identity(), native=said))
