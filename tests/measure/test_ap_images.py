"""What is kept of each image gives the same AP as all matches, and paired intervals cover."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_scoring import COMMON, random_case

from detrbench.measure import ap_images, ap_interval, scoring
from detrbench.measure.ap_interval import ClassMatches, Matches
from detrbench.measure.detections import Detections


def _matches(seed: int, images: int = 12) -> tuple[Matches, list[int]]:
    dataset, detections = random_case(seed, images)
    return scoring.score(Detections.of(detections), dataset, COMMON).matched.of_all_sizes(), dataset.image_ids


@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_gives_the_same_ap(tmp_path: Path, seed: int) -> None:
    matches, ids = _matches(seed)
    path = tmp_path / "images.npz"
    path.write_bytes(ap_images.pack({"common": matches}, ids, "key"))
    found = ap_images.read(path, "common")
    assert found is not None
    assert found.key == "key"
    kept = sum(len(one.image) for one in found.matches.classes)
    assert kept < sum(len(one.image) for one in matches.classes)
    weights = np.random.default_rng(seed).integers(0, 4, (20, 12))
    np.testing.assert_array_equal(
        ap_interval.weighted_ap(found.matches, weights), ap_interval.weighted_ap(matches, weights)
    )


def test_equal_matches_give_equal_bytes_and_other_images_another_hash(tmp_path: Path) -> None:
    matches, ids = _matches(0)
    one, other = tmp_path / "a.npz", tmp_path / "b.npz"
    one.write_bytes(ap_images.pack({"common": matches}, ids, "key"))
    other.write_bytes(ap_images.pack({"common": matches}, [i + 1 for i in ids], "key"))
    assert one.read_bytes() == ap_images.pack({"common": matches}, ids, "key")
    a, b = ap_images.read(one, "common"), ap_images.read(other, "common")
    assert a is not None
    assert b is not None
    assert a.images != b.images


def test_corrected_annotations_make_other_images_of_them(tmp_path: Path) -> None:
    matches, ids = _matches(0)
    first = matches.classes[0]
    objects = first.objects.copy()
    objects[3] += 1
    corrected = Matches(12, [ClassMatches(first.image, first.hit, first.ignored, objects), *matches.classes[1:]])
    found = []
    for name, each in (("a", matches), ("b", corrected)):
        (tmp_path / name).write_bytes(ap_images.pack({"common": each}, ids, "key"))
        found.append(ap_images.read(tmp_path / name, "common"))
    assert found[0].images != found[1].images
    with pytest.raises(ValueError, match="not the same images"):
        ap_images.paired_difference(*found)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 half a file", b"not a zip"])
def test_broken_files_are_no_files(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "images.npz"
    if content is not None:
        path.write_bytes(content)
    assert ap_images.read(path, "common") is None


def test_kept_replicates_give_the_difference_that_drawing_them_gives(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(5), tmp_path / "images.npz"
    pair, kept, drawn_again = _simulated(rng, 40), [], []
    for matches in pair:
        for found, drawn in ((kept, {"common": ap_interval.bootstrap(matches)}), (drawn_again, {})):
            path.write_bytes(ap_images.pack({"common": matches}, list(range(40)), "key", drawn))
            found.append(ap_images.read(path, "common"))
    assert all(one.drawn is not None for one in kept)
    assert all(one.drawn is None for one in drawn_again)
    assert ap_images.paired_difference(*kept) == ap_images.paired_difference(*drawn_again)
    assert ap_images.paired_difference(*kept, of="ap50") == ap_interval.paired_difference(*pair, of="ap50")


def test_other_images_cannot_be_paired(tmp_path: Path) -> None:
    matches, path, found = _simulated(np.random.default_rng(5), 40)[0], tmp_path / "images.npz", []
    for first in (0, 1):
        path.write_bytes(ap_images.pack({"common": matches}, list(range(first, first + 40)), "key"))
        found.append(ap_images.read(path, "common"))
    with pytest.raises(ValueError, match="not the same images"):
        ap_images.paired_difference(*found)


def test_other_protocols_are_none_and_nothing_found_is_zero(tmp_path: Path) -> None:
    nothing = ClassMatches(np.zeros(0, int), np.zeros((2, 0), bool), np.zeros((2, 0), bool), np.array([1, 0]))
    path = tmp_path / "images.npz"
    path.write_bytes(ap_images.pack({"common": Matches(2, [nothing])}, [1, 2], "key"))
    assert ap_images.read(path, "paper_top100") is None
    found = ap_images.read(path, "common")
    assert found is not None
    assert ap_interval.weighted_ap(found.matches, np.ones((1, 2), int)).tolist() == [[0.0, 0.0]]


def _simulated(rng: np.random.Generator, images: int) -> tuple[Matches, Matches]:
    """Two detectors on the same images: the second finds a little less, and both fail on the same hard objects."""
    objects = rng.integers(0, 4, images)
    image = np.repeat(np.arange(images), objects)
    difficulty = rng.normal(0, 1, len(image)) + rng.normal(0, 0.7, images)[image]
    return _detector(rng, image, objects, difficulty, 0.6), _detector(rng, image, objects, difficulty, 0.4)


def _detector(
    rng: np.random.Generator, image: np.ndarray, objects: np.ndarray, hard: np.ndarray, skill: float
) -> Matches:
    score = skill - hard + rng.normal(0, 0.5, len(image))
    found = score > -0.5
    strays = rng.integers(0, len(objects), len(objects))
    images = np.concatenate([image[found], strays])
    order = np.argsort(-np.concatenate([score[found], rng.normal(-0.3, 0.7, len(strays))]))
    hit = np.concatenate([np.ones(found.sum(), bool), np.zeros(len(strays), bool)])[order]
    return Matches(len(objects), [ClassMatches(images[order], hit[None], np.zeros_like(hit)[None], objects)])


@pytest.mark.full
@pytest.mark.parametrize("images", [50, 120])
def test_paired_intervals_of_ap_cover(images: int) -> None:
    rng = np.random.default_rng(images)
    found = [ap_interval.paired_difference(*_simulated(rng, images)) for _ in range(600)]
    truth = np.mean([each.value for each in found])  # what AP on so many images is on average
    covered = [low <= truth <= high for low, high in (each.interval() for each in found)]
    assert 0.93 <= np.mean(covered) <= 0.97
