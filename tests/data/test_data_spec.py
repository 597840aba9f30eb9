"""DataSpec: what a suite may write."""

import subprocess
import sys
from pathlib import Path

import pytest

from detrbench.data import DataSpec
from detrbench.errors import DataError


def test_the_path_of_a_user():
    assert DataSpec("coco", path="~/coco").path == Path("~/coco").expanduser()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "voc"}, "data: expected 'coco' or 'shapes', found 'voc'"),
        ({"num_val": 0}, "num_val: expected an integer of at least 1, found 0"),
        ({"num_val": True}, "num_val: expected an integer"),
        ({"image_size": "128"}, "image_size: expected an integer"),
        ({"seed": -1}, "seed: expected an integer of at least 0"),
        ({"min_size": 100}, "min_size: expected at most 76"),
        ({"clutter": float("nan")}, "clutter: expected a number from 0 to 1"),
        ({"clutter": 1.5}, "clutter: expected a number from 0 to 1"),
        ({"texture_cue": -0.1}, "texture_cue: expected a number from 0 to 1"),
        ({"labels": "names"}, "labels: expected"),
        ({"limit": 0}, "limit: expected"),
        ({"keep_empty": 1}, "keep_empty: expected true or false"),
    ],
)
def test_refused(values, message):
    with pytest.raises(DataError, match=message) as caught:
        DataSpec(**{"kind": "shapes"} | values)
    assert caught.value.exit_code == 2


def test_data_without_tensors_never_imports_torch():
    modules = "detrbench.data, detrbench.data.spec, detrbench.data.validate, detrbench.data.coco, detrbench.data.shapes"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
