"""The catalogue: every entry whole, its options those that the weights were trained with."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from detrbench import models
from detrbench.errors import UsageError
from detrbench.measure import protocols
from detrbench.models.checkpoints import ADAPTERS
from detrbench.weights import catalogue, named
from detrbench.weights.catalogue import BACKBONES

OFFICIAL = Path(__file__).resolve().parents[1] / "reference" / "official"
# Read with PyYAML for its merge keys.
SAID: dict[str, dict[str, Any]] = yaml.safe_load((OFFICIAL / "configurations.yaml").read_text())["weights"]
DETECTORS = [entry for entry in catalogue.entries().values() if entry.model]


def said(name: str) -> dict[str, Any]:
    """What the official configuration of some weights says."""
    (found,) = [said["says"] for pattern, said in SAID.items() if fnmatch.fnmatchcase(name, pattern)]
    return found


@pytest.mark.parametrize("entry", DETECTORS, ids=lambda entry: entry.name)
def test_options_are_those_the_weights_were_trained_with(entry: catalogue.Entry) -> None:
    options = models.resolve(str(entry.model), entry.options).options
    expected = {key: float(value) if key == "logit_eps" else value for key, value in said(entry.name).items()}
    assert {key: options.get(key) for key in expected} == expected


def test_every_official_configuration_has_its_weights() -> None:
    for pattern in SAID:
        assert any(fnmatch.fnmatchcase(entry.name, pattern) for entry in DETECTORS), pattern


@pytest.mark.parametrize(
    ("name", "temperature", "offset"),
    [
        ("focus_detr/r50_12ep", 10000, -0.5),
        ("focus_detr/r50_24ep", 20, 0.0),
        ("focus_detr/r101_36ep", 20, 0.0),
        ("focus_detr/swin_t_36ep", 10000, -0.5),
        ("detrex/dino_r50_4scale_12ep", 10000, -0.5),
        ("detrex/dino_r50_4scale_24ep", 20, 0.0),
        ("dino/r50_4scale_12ep", 20, 0.0),
        ("sparse_detr/r50_rho0.1", 10000, -0.5),
    ],
)
def test_positions_that_load_strictly_and_would_be_wrong_in_silence(name: str, temperature: int, offset: float) -> None:
    options = models.resolve(str(catalogue.get(name).model), catalogue.get(name).options).options
    assert (options["position_temperature"], options["position_offset"]) == (temperature, offset)


def test_every_entry_is_whole() -> None:
    assert len(catalogue.entries()) > 100
    known = {adapter.name for adapter in ADAPTERS}
    for entry in catalogue.entries().values():
        assert entry.url or entry.by_hand, entry.name
        for address in filter(None, (entry.url, entry.by_hand)):
            assert re.fullmatch(r"https://\S+", address) or named.parts_of_hub(address), address
        if entry.family == BACKBONES:
            assert entry.model is None
            continue
        assert entry.adapter in known, entry.name
        assert entry.ap, entry.name
        assert all(30 < ap < 65 for ap in entry.ap.values()), entry.name
        assert set(entry.ap) <= set(protocols.of("accuracy")), entry.name
        assert re.search(r"@[0-9a-f]{7}|model cards", entry.code), entry.name


def test_no_two_entries_share_an_address_or_a_place() -> None:
    addresses = [entry.url for entry in catalogue.entries().values() if entry.url]
    assert len(addresses) == len(set(addresses))
    files = [entry.file for entry in catalogue.entries().values() if entry.family == BACKBONES]
    assert len(files) == len(set(files))


@pytest.mark.parametrize("entry", DETECTORS, ids=lambda entry: entry.name)
def test_the_number_of_classes_is_that_of_its_code_base(entry: catalogue.Entry) -> None:
    classes = models.resolve(str(entry.model), entry.options).options["num_classes"]
    assert classes == (80 if entry.adapter in ("detrex", "RT-DETR") else 91)


def test_what_a_row_names_has_to_be_what_was_trained() -> None:
    entry = catalogue.get("focus_detr/r50_36ep")
    chosen = catalogue.options_for(entry, "focus_detr_r50", {"keep_ratios": [0.5, 0.4, 0.3, 0.3, 0.2, 0.1]})
    assert (chosen["position_temperature"], chosen["position_offset"]) == (20, 0.0)
    for options, difference in (
        ({"keep_ratios": [0.1] * 6}, r"keep_ratios is \[0.5, .*, here \[0.1, "),
        ({"position_temperature": 10000}, "position_temperature is 20, here 10000"),
        ({"encoder": "deformable"}, "encoder is focus, here deformable"),
    ):
        with pytest.raises(UsageError, match=f"focus_detr/r50_36ep: weights of another detector: {difference}"):
            catalogue.options_for(entry, "focus_detr_r50", options)
    with pytest.raises(UsageError, match="weights of another detector: backbone is resnet50, here resnet101"):
        catalogue.options_for(entry, "focus_detr_r101", {})
    with pytest.raises(UsageError, match="weights of a backbone"):
        catalogue.options_for(catalogue.get("backbones/resnet50"), "focus_detr_r50", {})


def test_looking_it_up_imports_no_torch() -> None:
    program = (
        "import sys; from detrbench.weights import catalogue, fetching, named, store; catalogue.entries();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
