from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from detrbench.errors import UsageError
from detrbench.measure import protocols
from detrbench.measure.inputs import Inputs, Size, detectron2_size, detr_size, val2017_first_100
from detrbench.measures import CHOSEN


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1066)),  # truncated, where rounding gives 1067
        ((640, 480), (1066, 800)),
        ((480, 480), (800, 800)),
        ((300, 800), (500, 1333)),  # capped by the long side
        ((800, 1000), (800, 1000)),
        ((427, 1000), (569, 1332)),
    ],
)
def test_detr_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert detr_size(*size) == expected


def test_detectron2_rounds() -> None:
    assert detectron2_size(480, 640) == (800, 1067)
    assert detectron2_size(300, 800) == (500, 1333)


@pytest.mark.parametrize(("rule", "gflops"), [(detr_size, 73.244), (detectron2_size, 73.252)])
def test_first_100_images_give_the_known_backbone_mean(rule: Callable[[int, int], Size], gflops: float) -> None:
    """ResNet-50 by its closed form over the pixels at each stride; 73.252 is what detrex's tool prints."""
    coefficients = {2: 9_536, 4: 248_832, 8: 1_318_144, 16: 7_492_096, 32: 14_439_424}
    total = 0
    for (height, width), images in Inputs.first_100(rule).sizes().items():
        h, w = height, width
        for coefficient in coefficients.values():
            h, w = (h + 1) // 2, (w + 1) // 2
            total += coefficient * h * w * images
    assert total / 100 / 1e9 == pytest.approx(gflops, abs=1e-3)


def test_first_100_images_by_id() -> None:
    images = val2017_first_100()
    assert len(images) == 100
    assert images[0] == (139, (426, 640))
    assert [image for image, _ in images] == sorted(image for image, _ in images)


def test_every_protocol_states_its_convention() -> None:
    for measure in CHOSEN:
        for name in protocols.of(measure):
            protocol = protocols.get(measure, name)
            assert protocol.name == name
            assert protocol.convention
            assert protocol.version >= 1


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="comon") as error:
        protocols.get("complexity", "comon")
    assert "common" in (error.value.hint or "")
    with pytest.raises(UsageError, match="measure"):
        protocols.get("speed")


def test_protocols_import_no_torch() -> None:
    code = "import sys; import detrbench.measure.protocols, detrbench.statistics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
