"""Comparisons over seeds: against closed forms, and by simulation. How often are equals called different?"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from made_results import MadeResults, three_trainings
from scipy import stats

from detrbench import statistics
from detrbench.compare import differences
from detrbench.compare.differences import Difference, Reading, Training
from detrbench.compare.quantities import QUANTITIES
from detrbench.compare.verdicts import of_family, verdict_on, worded
from detrbench.measure import ap_images
from detrbench.measure.ap_images import ImageMatches
from detrbench.measure.ap_interval import Matches, Replicates
from detrbench.statistics import Evidence

AP = QUANTITIES["ap"]


def test_without_noise_of_images_it_is_welchs_test() -> None:
    rng = np.random.default_rng(0)
    new, old = rng.normal(41, 1, 3), rng.normal(40, 2, 4)
    found = statistics.of_seeds(list(new), 0.0).minus(statistics.of_seeds(list(old), 0.0))
    wanted = stats.ttest_ind(new, old, equal_var=False)
    assert found.df == pytest.approx(wanted.df)
    assert found.interval() == pytest.approx(tuple(wanted.confidence_interval(0.95)))


def test_images_add_their_variance() -> None:
    alone, found = statistics.of_seeds([40.0, 42.0, 41.0], 0.0), statistics.of_seeds([40.0, 42.0, 41.0], 2.0)
    assert (alone.value, alone.df) == (41, 2)
    assert found.value == 41
    assert found.se == pytest.approx(math.hypot(alone.se, 2.0))
    assert found.df == pytest.approx(2 * found.se**4 / alone.se**4)


@pytest.mark.parametrize("df", [3.0, 8.0, math.inf])
def test_a_detectable_difference_is_found_four_times_out_of_five(df: float) -> None:
    rng, se = np.random.default_rng(1), 1.7
    truth = Evidence(0.0, se, df).detectable()
    noise = np.sqrt(rng.chisquare(df, 4000) / df) if math.isfinite(df) else np.ones(4000)
    found = [Evidence(truth + se * z, se * s, df) for z, s in zip(rng.normal(size=4000), noise, strict=True)]
    assert 0.76 <= np.mean([each.interval()[0] > 0 for each in found]) <= 0.86


def test_what_is_detectable_of_a_ratio_is_a_ratio() -> None:
    assert Evidence(1.0, 0.01, log=True).detectable() == pytest.approx(math.exp(0.01 * (1.959964 + 0.841621)))
    assert Evidence(3.0).detectable() == 0


# ------------------------------------------------------------------------------------- equals under other seeds


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, Replicates]:
    """What stands in the files of per-image results, by name; the images are the same in all of them."""
    files: dict[str, Replicates] = {}
    nothing = Matches(0, [])
    monkeypatch.setattr(
        ap_images, "read", lambda path, protocol: ImageMatches(path.name, "i", nothing, files[path.name])
    )
    return files


class World:
    """Two methods on the same images. An AP is the mean over images of a score, moved by the seed of its training.

    Args:
        seeds: trainings of each method.
        between: standard deviation of AP between seeds.
        images: standard error over images of the difference of the methods.
        kept: receives what the files of per-image results would hold.
        more: AP that the second method has more.
    """

    IMAGES, REPLICATES = 60, 150

    def __init__(
        self, seeds: int, between: float, images: float, kept: dict[str, Replicates], more: float = 0.0
    ) -> None:
        self.seeds, self.between, self.images, self.kept, self.more = seeds, between, images, kept, more
        self.rng = np.random.default_rng(seeds)
        self.counts = statistics.resample_counts(self.IMAGES, self.REPLICATES) / self.IMAGES

    def compared(self) -> Difference:
        shared = self.rng.normal(0, 20, self.IMAGES)
        old, new = (self._method(name, shared) for name in ("old", "new"))
        return differences.difference(new, old)

    def _method(self, name: str, shared: np.ndarray) -> Reading:
        spread = self.images * math.sqrt(self.IMAGES / 2)  # of single images, so that the difference of means has it
        own = self.rng.normal(0, spread, self.IMAGES)
        more = self.more if name == "new" else 0.0
        return Reading(
            AP,
            Evidence(0.0),
            "common",
            1,
            "a machine",
            trainings=tuple(self._training(f"{name}{i}", shared + own + more) for i in range(self.seeds)),
        )

    def _training(self, name: str, scores: np.ndarray) -> Training:
        mine = scores + self.rng.normal(0, self.between) + self.rng.normal(0, self.between, self.IMAGES)
        self.kept[name] = Replicates(self.counts @ mine, self.counts @ mine)
        return Training(float(mine.mean()), 1.0, name, Path(name), name)

    def share(self, simulations: int) -> float:
        """How often the second method is called better or worse."""
        found = [verdict_on(self.compared(), AP) for _ in range(simulations)]
        return sum(word in ("better", "worse") for word in found) / simulations


def most(simulations: int) -> float:
    """Of so many simulations at 5 %, 99 in 100 find fewer."""
    return 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / simulations)


@pytest.mark.parametrize("seeds", [2, 3])
def test_equals_are_rarely_called_different(kept: dict[str, Replicates], seeds: int) -> None:
    """A/A: the same method under other seeds, nominal 5 %; spread as four rows at the scale smoke were."""
    assert World(seeds, 2.0, 1.1, kept).share(500) <= most(500)


@pytest.mark.full
@pytest.mark.parametrize("images", [0.0, 0.5, 1.1, 3.0])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equals_are_rarely_called_different_whatever_varies_most(
    kept: dict[str, Replicates], seeds: int, images: float
) -> None:
    """Two seeds say it of up to 6 % of equals: the degrees of freedom of so few are themselves uncertain."""
    found = World(seeds, 2.0, images, kept).share(4000)
    assert found <= most(4000) + (0.01 if seeds == 2 else 0.0), found


def test_images_alone_call_equals_different(kept: dict[str, Replicates]) -> None:
    """What this guards against: of one training each, the interval over images leaves the seed out."""
    world = World(1, 2.0, 1.1, kept)
    false = 0
    for _ in range(500):
        new, old = (world._method(name, np.zeros(world.IMAGES)) for name in ("new", "old"))
        drawn = kept["new0"].ap - kept["old0"].ap
        low, high = statistics.from_replicates(new.trainings[0].value - old.trainings[0].value, drawn).interval()
        false += not low <= 0 <= high
    assert false / 500 > 0.25


def test_a_large_difference_is_found(kept: dict[str, Replicates]) -> None:
    """Four standard deviations between seeds, three seeds each."""
    assert World(3, 1.0, 0.3, kept, more=4.0).share(300) > 0.8


# --------------------------------------------------------------------------------------------- what is said of what


def made_of(trainings: int, given: bool = False, name: str = "a") -> Reading:
    found = tuple(Training(40.0 + i, 1.0, f"{name}{i}") for i in range(trainings))
    return Reading(AP, Evidence(40.0, 1.0), "common", 1, "a machine", trainings=found, given=given)


@pytest.mark.parametrize(
    ("new", "old", "about"),
    [
        (made_of(3), made_of(3, name="b"), "method"),
        (made_of(1), made_of(3, name="b"), "training"),
        (made_of(3), made_of(1, name="b"), "training"),
        (made_of(1), made_of(1, given=True, name="b"), "training"),
        (made_of(1, given=True), made_of(1, given=True, name="b"), "weights"),
        (made_of(3), made_of(1, given=True, name="b"), "weights"),
        (made_of(1), made_of(1), "weights"),  # the very same
    ],
)
def test_what_a_difference_is_about(new: Reading, old: Reading, about: str) -> None:
    assert differences.difference(new, old).about == about


def test_verdicts_say_what_they_hold_for() -> None:
    far = Evidence(9.0, 0.1)
    assert verdict_on(Difference(far, about="training"), AP) == "undecided"
    assert worded("undecided", "training") == "undecided (one seed)"
    assert worded(verdict_on(Difference(far, about="weights"), AP), "weights") == "better on these weights"
    assert worded(verdict_on(Difference(far, about="method"), AP), "method") == "better"
    assert Difference(far, about="training").detectable() is None
    assert Difference(Evidence(1.0)).detectable() is None


def test_a_family_is_judged_by_holms_procedure() -> None:
    """P = 0.03 is enough by itself, and among two where the other has 0.02; what cannot tell is no member."""
    quantile = stats.norm.isf
    weak, strong = (Difference(Evidence(float(quantile(p / 2)), 1.0)) for p in (0.03, 0.02))
    for difference, word in ((weak, "better"), (Difference(Evidence(-9.0)), "worse")):
        assert of_family([(difference, AP)]) == [word]
    assert of_family([(weak, AP), (strong, AP)]) == ["better", "better"]
    assert of_family([(weak, AP), (weak, AP)]) == ["unclear", "unclear"]
    others = [
        Difference(Evidence(1.0)),
        Difference(Evidence(1.0, math.inf)),
        Difference(Evidence(9.0, 0.1), about="training"),
    ]
    assert of_family([(weak, AP), *((each, AP) for each in others)]) == ["better", "better", "unclear", "undecided"]


def test_equal_families_seldom_find_anything() -> None:
    rng, found = np.random.default_rng(7), 0
    for _ in range(1000):
        family = [(Difference(Evidence(float(z), 1.0)), AP) for z in rng.normal(size=12)]
        found += bool({"better", "worse"} & set(of_family(family)))
    assert found / 1000 <= 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / 1000)


# ------------------------------------------------------------------------------------------------ read from results


@pytest.fixture
def made(tmp_path: Path) -> MadeResults:
    return three_trainings(tmp_path)


def readings(made: MadeResults) -> tuple[Reading, Reading]:
    cells = {cell.id: cell for cell in made.store.cells("demo", "smoke")}
    assert list(cells) == ["deformable", "sparse"]
    new, old = (differences.read(cells[name], AP) for name in ("sparse", "deformable"))
    assert new is not None
    assert old is not None
    return new, old


def test_a_reading_is_the_mean_of_its_trainings(made: MadeResults) -> None:
    new, _ = readings(made)
    assert [each.value for each in new.trainings] == pytest.approx([70, 75, 80])
    assert new.evidence.value == pytest.approx(75)
    assert new.spread == pytest.approx(5)
    assert new.evidence.se == pytest.approx(math.hypot(5 / math.sqrt(3), 2 / 1.959964))


def test_images_are_paired_over_all_trainings(made: MadeResults) -> None:
    new, old = readings(made)
    found = differences.difference(new, old)
    files = [[ap_images.read(each.images, "common") for each in side.trainings] for side in (new, old)]
    means = [np.mean([ap_images.mean_replicates([one], "ap") for one in side if one], axis=0) for side in files]
    seeds = math.sqrt(25 / 3 + 4 / 3)
    assert found.evidence.value == pytest.approx(75 - 52)
    assert found.evidence.se == pytest.approx(math.hypot(seeds, float((means[0] - means[1]).std(ddof=1))))
    assert found.notes == ("3 against 3 seeds",)
    assert found.about == "method"


def test_where_images_are_not_kept_the_difference_says_so(made: MadeResults) -> None:
    made.ap("sparse#1", 75.0)
    new, old = readings(made)
    found = differences.difference(new, old)
    assert any("unpaired" in note for note in found.notes)
    assert found.evidence.se == pytest.approx(math.hypot(new.evidence.se, old.evidence.se))


def test_a_training_without_figure_is_told(made: MadeResults) -> None:
    made.state("sparse#2", "accuracy", "not_measured", "training failed: diverged")
    new, old = readings(made)
    assert len(new.trainings) == 2
    assert differences.difference(new, old).notes == (
        "2 against 3 seeds",
        "sparse#2: not measured: training failed: diverged",
    )


def test_the_same_weights_are_paired_by_seed(made: MadeResults) -> None:
    """Rows that run another row's weights share its luck: what is left is how much the difference varies."""
    new, old = readings(made)
    shared = tuple(
        Training(mine.value, mine.se, mine.key, mine.images, theirs.weights)
        for mine, theirs in zip(new.trainings, old.trainings, strict=True)
    )
    found = differences.difference(dataclasses.replace(new, trainings=shared), old)
    apart = differences.difference(new, old)
    drawn = apart.evidence.se**2 - (25 / 3 + 4 / 3)
    assert found.evidence.value == pytest.approx(apart.evidence.value)
    assert found.evidence.se == pytest.approx(math.sqrt(drawn + np.var([20, 23, 26], ddof=1) / 3))
