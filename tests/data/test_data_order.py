"""Orders of images: passes, epochs of so many steps, images of like orientation side by side."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from detrbench.data import DataSpec, open_dataset
from detrbench.data.order import Order, Place, in_turn


class Images:
    """So many images, of which those with an even index are wide."""

    def __init__(self, count: int) -> None:
        self.sizes = np.array([(64, 48) if index % 2 == 0 else (48, 64) for index in range(count)])

    def __len__(self) -> int:
        return len(self.sizes)


def flat(steps: list[list[Place]]) -> list[Place]:
    return [place for step in steps for place in step]


def test_an_epoch_is_a_pass_unless_it_has_a_number_of_steps() -> None:
    steps = Order(4, seed=3).epoch(Images(10), 2)
    assert [len(step) for step in steps] == [4, 4, 2]
    assert sorted(flat(steps)) == [Place(index, 2) for index in range(10)]
    assert in_turn(5, 2) == [[Place(0, 0), Place(1, 0)], [Place(2, 0), Place(3, 0)], [Place(4, 0)]]


def test_every_pass_and_every_seed_has_an_order_of_its_own() -> None:
    images = Images(10)
    orders = [[place.image for place in flat(Order(4, seed=s).epoch(images, n))] for s in (3, 4) for n in range(3)]
    assert len(set(map(tuple, orders))) == 6
    assert orders[0] == [place.image for place in flat(Order(5, seed=3).epoch(images, 0))]


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_epochs_of_steps_go_on_where_the_last_one_ended(steps: int) -> None:
    images, order = Images(10), Order(4, seed=3, steps=steps)
    epochs = [order.epoch(images, epoch) for epoch in range(6)]
    assert all([len(step) for step in epoch] == [4] * steps for epoch in epochs)
    stream = [place for epoch in epochs for place in flat(epoch)]
    passes = [flat(Order(4, seed=3).epoch(images, number)) for number in range(20)]
    assert stream == [place for one in passes for place in one][: 6 * 4 * steps]
    seen = Counter(place.image for place in stream)
    assert max(seen.values()) - min(seen.values()) <= 1


@pytest.mark.parametrize("grouped", [2, 4])
@pytest.mark.parametrize(("count", "steps"), [(40, None), (41, None), (41, 12)])
def test_images_of_one_orientation_stay_together(grouped: int, count: int, steps: int | None) -> None:
    images = Images(count)
    order = Order(4, seed=1, steps=steps, grouped=grouped)
    plain = Order(4, seed=1, steps=steps)
    for epoch in range(3):
        places = flat(order.epoch(images, epoch))
        assert sorted(places) == sorted(flat(plain.epoch(images, epoch)))
        assert places != flat(plain.epoch(images, epoch))
        groups = [places[i : i + grouped] for i in range(0, len(places), grouped)]
        mixed = [number for number, group in enumerate(groups) if len({place.image % 2 for place in group}) > 1]
        assert set(mixed) <= {len(groups) - 2, len(groups) - 1}  # of what was left over


def test_data_sets_know_the_sizes_of_their_images() -> None:
    dataset = open_dataset(DataSpec("shapes", num_train=8, image_size=48), "train")
    assert dataset.sizes.tolist() == [list(dataset[index].image.size) for index in range(8)]
