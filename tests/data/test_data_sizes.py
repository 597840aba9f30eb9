"""DETR's size rule, against sizes worked out by hand."""

import pytest

from detrbench.data.sizes import resized_size


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (640, 480, (1066, 800)),  # 800 * 640 / 480 = 1066.67, truncated
        (480, 640, (800, 1066)),
        (427, 640, (800, 1199)),
        (640, 640, (800, 800)),
        (640, 360, (1333, 750)),  # capped: 1333 * 360 / 640 = 749.8, rounded
        (640, 383, (1333, 798)),  # capped at 797.8; 798 * 640 / 383 = 1333.5
        (500, 281, (1332, 749)),  # capped at 749.1, and the long side falls short of 1333
        (375, 500, (800, 1066)),
        (1333, 800, (1333, 800)),  # exactly at the cap: unchanged
        (640, 240, (1333, 500)),  # 499.875 rounds up: 500 * 640 / 240 = 1333.3
        (2000, 1, (2000, 1)),  # never below one pixel
    ],
)
def test_shortest_800_longest_1333(width, height, expected):
    assert resized_size(width, height, 800, 1333) == expected


def test_without_a_cap():
    assert resized_size(2000, 100, 800) == (16000, 800)


def test_turning_the_image_turns_the_size():
    for width in range(50, 700, 37):
        for height in range(60, 700, 41):
            assert resized_size(width, height, 800, 1333) == resized_size(height, width, 800, 1333)[::-1]
