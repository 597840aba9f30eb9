"""batches: padding, order, resuming, workers, errors."""

import threading

import pytest
import torch

from detrbench.data import DataSpec, open_dataset
from detrbench.data.loading import batches, num_batches, pad, steps
from detrbench.data.order import Order
from detrbench.data.transforms import Eval, Train
from detrbench.errors import DataError

TRAIN = Train(scales=(40, 48, 56), longest=80, crop=False)


@pytest.fixture(scope="module")
def dataset():
    return open_dataset(DataSpec("shapes", num_train=11, image_size=48), "train")


def same(first, second):
    return (
        first.image_ids == second.image_ids
        and torch.equal(first.images, second.images)
        and torch.equal(first.masks, second.masks)
        and torch.equal(first.sizes, second.sizes)
        and all(torch.equal(a[k], b[k]) for a, b in zip(first.targets, second.targets, strict=True) for k in a)
    )


def test_padding_is_zero_and_masked():
    images, masks = pad([torch.ones(3, 4, 6), torch.ones(3, 5, 2)])
    assert images.shape == (2, 3, 5, 6)
    assert masks.shape == (2, 5, 6)
    assert masks.dtype == torch.bool
    assert torch.equal(images == 0, masks[:, None].expand_as(images))
    assert (~masks).sum(dim=(1, 2)).tolist() == [24, 10]


def test_evaluation_goes_through_all_images_in_order(dataset):
    loaded = list(batches(dataset, Eval(48, 80), 4))
    assert [len(batch.image_ids) for batch in loaded] == [4, 4, 3]
    assert [i for batch in loaded for i in batch.image_ids] == list(range(1, 12))
    assert num_batches(dataset, 4) == 3
    for batch in loaded:
        assert batch.images.shape[0] == len(batch.targets) == len(batch.image_ids)
        assert batch.masks.shape == (batch.images.shape[0], *batch.images.shape[2:])
        assert batch.sizes.dtype == torch.int64
        assert (~batch.masks).flatten(1).any(1).all()
        for image_id, size in zip(batch.image_ids, batch.sizes.tolist(), strict=True):
            sample = dataset[image_id - 1]
            assert size == [sample.height, sample.width]


def one_epoch(dataset, transform, size, seed, epoch, **options):
    """The steps of an epoch, each of one micro-batch."""
    loaded = steps(dataset, transform, Order(size, seed=seed), size, epochs=[epoch], **options)
    return [batch for step in loaded for batch in step]


def test_order_depends_on_seed_and_epoch_only(dataset):
    def order(**options):
        return [i for batch in one_epoch(dataset, Eval(32, 64), 3, **options) for i in batch.image_ids]

    assert order(seed=1, epoch=2) == order(seed=1, epoch=2)
    assert sorted(order(seed=1, epoch=2)) == list(range(1, 12))
    assert len({tuple(order(seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_neither_workers_nor_resuming_change_a_batch(dataset, num_workers):
    whole = one_epoch(dataset, TRAIN, 2, seed=3, epoch=1)
    for start in (0, 2, 5, 6):
        options = {"seed": 3, "epoch": 1, "start_batch": start, "num_workers": num_workers}
        resumed = one_epoch(dataset, TRAIN, 2, **options)
        assert len(resumed) == len(whole) - start
        assert all(same(a, b) for a, b in zip(resumed, whole[start:], strict=True))


def test_resuming_reads_no_image_of_the_batches_before(dataset):
    class Watched:
        image_ids, read = dataset.image_ids, []

        def __len__(self):
            return len(dataset)

        def __getitem__(self, index):
            self.read.append(index)
            return dataset[index]

    order = Order(4)
    next(steps(Watched(), TRAIN, order, 4, epochs=[0], start_batch=2))
    assert Watched.read == [place.image for place in order.epoch(dataset, 0)[2]]
    assert len(Watched.read) == 3


def test_augmentation_changes_with_the_epoch(dataset):
    passes = [one_epoch(dataset, TRAIN, 1, seed=0, epoch=epoch) for epoch in (0, 1)]
    first, second = (sorted(found, key=lambda batch: batch.image_ids) for found in passes)
    assert [batch.image_ids for batch in first] == [batch.image_ids for batch in second]
    assert not all(same(a, b) for a, b in zip(first, second, strict=True))


def test_a_broken_image_is_named_when_its_batch_is_due(coco_folder):
    (coco_folder.images / "c.jpg").write_bytes(b"\0")
    dataset = open_dataset(DataSpec("coco", path=coco_folder.root), "val")
    for num_workers in (0, 2):
        loading = batches(dataset, Eval(32, 64), 1, num_workers=num_workers)
        assert [next(loading).image_ids for _ in range(2)] == [[10], [20]]
        with pytest.raises(DataError, match="image id 30"):
            next(loading)


def test_a_reader_that_stops_early_leaves_no_threads(dataset):
    loading = batches(dataset, TRAIN, 1, num_workers=2)
    next(loading)
    loading.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_to_moves_everything_but_the_ids(dataset):
    batch = next(batches(dataset, Eval(32, 64), 2)).to("meta")
    assert batch.images.device.type == batch.masks.device.type == batch.sizes.device.type == "meta"
    assert batch.targets[0]["boxes"].device.type == "meta"
    assert batch.image_ids == [1, 2]


def test_each_image_of_an_epoch_is_augmented_by_itself(dataset):
    class Shares:
        def __call__(self, sample, rng):
            return torch.zeros(3, 4, 4), {"share": torch.tensor(rng.random())}

    (batch,) = batches(dataset, Shares(), 11)
    assert len({float(target["share"]) for target in batch.targets}) == 11


def in_steps(dataset, **options):
    return list(steps(dataset, TRAIN, Order(4, seed=3), 2, epochs=range(2), **options))


@pytest.mark.parametrize("workers", [1, 2])
def test_steps_do_not_depend_on_the_number_of_processes_that_read(dataset, workers):
    alone, ahead = (in_steps(dataset, start_batch=1, num_workers=number) for number in (0, workers))
    assert [[len(batch.image_ids) for batch in step] for step in alone] == [[2, 2], [2, 1], [2, 2], [2, 2], [2, 1]]
    for one, other in zip(alone, ahead, strict=True):
        assert all(same(first, second) for first, second in zip(one, other, strict=True))


def test_a_step_goes_on_where_it_was_left(dataset):
    whole = in_steps(dataset)
    for start in (1, 2):
        later = in_steps(dataset, start_batch=start)
        assert len(later) == len(whole) - start
        assert all(same(a, b) for one, other in zip(later, whole[start:]) for a, b in zip(one, other, strict=True))


def test_parts_of_a_step_are_the_step(dataset):
    parts = [in_steps(dataset, part=(number, 2)) for number in range(2)]
    for whole, *mine in zip(in_steps(dataset), *parts, strict=True):
        together = [batch for part in mine for batch in part]
        assert all(same(a, b) for a, b in zip(whole, together, strict=True))
    assert [len(step) for step in parts[1]] == [1, 1, 1] * 2


class Broken:
    """The data set with an image that cannot be read."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        if index == 7:
            raise DataError("seven.jpg: broken", hint="restore it")
        return self.dataset[index]


def test_a_broken_image_is_named_by_whoever_reads_it(dataset):
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"^seven.jpg: broken$") as caught:
            in_steps(Broken(dataset), num_workers=workers)
        assert caught.value.hint == "restore it"


def test_reading_ahead_draws_no_random_number_of_others(dataset):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    in_steps(dataset, num_workers=1)
    assert torch.equal(torch.get_rng_state(), before)
