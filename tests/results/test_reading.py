"""What is read back has the types that were written, or says where it has not."""

from __future__ import annotations

from typing import Any

import pytest

from detrbench.results import records
from detrbench.results.reading import RECORDS, Description, Envelope, Status, envelope_misfit, misfit
from detrbench.results.records import Estimate, to_json

WHOLE = records.Memory("common", 1, "", "cpu", 1, 64, 64, 2.0, None, float("nan"))


def test_what_is_written_fits() -> None:
    assert envelope_misfit({"seconds": 1.5, "records": {"common": to_json(WHOLE)}}, "memory") is None
    assert misfit(to_json(Estimate(1.0, "AP", 3)), Estimate) is None


def test_every_measure_has_its_record() -> None:
    from detrbench.measures import MEASURES

    assert set(RECORDS) == set(MEASURES)


@pytest.mark.parametrize(
    ("hint", "value", "said"),
    [
        (Envelope, {"seconds": "1"}, "seconds: expected a number, got '1'"),
        (Envelope, {"seconds": True}, "seconds: expected a number, got True"),
        (Envelope, {"seconds": float("inf")}, "seconds: expected a number, got inf"),
        (Envelope, {"seconds": 10**400}, "seconds: expected a number, got 1000"),
        (Envelope, {"environment": {"gpus": "H100"}}, "environment.gpus: expected a list, got 'H100'"),
        (Envelope, {"count_keys": {"common": 3}}, "count_keys.common: expected a text, got 3"),
        (Status, {"measures": {"memory": None}}, "measures.memory: expected a mapping, got None"),
        (Status, {"measures": {"memory": {"why": 3}}}, "measures.memory.why: expected a text, got 3"),
        (Description, {"index": 0.5}, "index: expected a whole number, got 0.5"),
        (Description, {"published_only": 1}, "published_only: expected true or false, got 1"),
        (Description, [], "expected a mapping, got []"),
        (Estimate, {"value": 1.0, "unit": "ms"}, "expected a mapping with n, unit, value, got {"),
        (Estimate, {"value": 1.0, "unit": "ms", "n": 3, "low": "x"}, "low: expected a number, got 'x'"),
    ],
)
def test_what_does_not_fit_is_named(hint: Any, value: Any, said: str) -> None:
    assert str(misfit(value, hint)).startswith(said)


def test_records_are_looked_into() -> None:
    found = {"records": {"common": {**to_json(WHOLE), "forward_mib": [2.0]}}}
    assert envelope_misfit(found, "memory") == "records.common.forward_mib: expected a number, got [2.0]"
