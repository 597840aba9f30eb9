"""The report's pictures of traces, from a made-up results folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_scenes import scene

from detrbench.pictures.scene import pack
from detrbench.report import pictures, render, sections, write
from detrbench.results.store import ResultsStore

KEEP = {"deformable": 1.0, "sparse-0.5": 0.5, "sparse-0.3": 0.3}


@pytest.fixture
def traced(results: Path) -> Path:
    """Quickstart's cells but one with traces."""
    for name, keep in KEEP.items():
        (cell,) = results.glob(f"quickstart/smoke/cells/{name}-*")
        record = {"protocol": "common", "protocol_version": 1, "convention": "invented", "image_ids": [1]}
        envelope = {"schema": 1, "measure": "pictures", "key": "k", "seconds": 1.0, "records": {"common": record}}
        (cell / "pictures.json").write_text(json.dumps(envelope))
        (cell / "traces.npz").write_bytes(pack([scene("image 1", keep)], "k"))
    return results


def quickstart(root: Path) -> sections.Section:
    return sections.read(ResultsStore(root), ["quickstart"])[0]


def test_variants_stand_side_by_side(traced: Path) -> None:
    made = pictures.gallery_of(quickstart(traced))
    assert [entry.key for entry in made] == ["kept", "attention", "detections", "sampling", "paths"]
    alt = made[0].picture.alt
    # sparse-0.1 has no traces, so no column.
    for words in ("deformable: 60 of 60", "sparse-0.3: 18 of 60", "sparse-0.5: 30 of 60"):
        assert words in alt
    assert "sparse-0.1" not in alt


def test_page_shows_them_is_stable_and_needs_no_torch(traced: Path) -> None:
    program = "import sys; from pathlib import Path; from detrbench.report import render; "
    program += "sys.stdout.write(render(Path(sys.argv[1]), ['quickstart'])); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, str(traced)], check=True, capture_output=True, text=True)
    html = render(traced, ["quickstart"])
    assert done.stdout == html
    images = re.findall(
        r'<img loading="lazy" src="data:image/png;base64,[A-Za-z0-9+/=]+" alt="([^"]+)" width="\d+" height="\d+">', html
    )
    assert len(images) == html.count("<img ") == 5
    assert "Inside the detectors" in html
    assert len(html) < 2_000_000


@pytest.mark.usefixtures("undrawn")
def test_pictures_lie_beside_a_page_that_is_written(traced: Path, tmp_path: Path) -> None:
    page, *kept = write(traced, tmp_path / "out" / "mine.html", ["quickstart"])
    html = page.read_text()
    assert "data:image" not in html
    sources = re.findall(r'<img loading="lazy" src="([^"]+)"', html)
    assert sorted(sources) == sorted(f"mine_pictures/{path.name}" for path in kept)
    assert len(kept) == 5
    for path in kept:
        assert path.parent == page.parent / "mine_pictures"
        assert path.read_bytes().startswith(b"\x89PNG")
    assert len(html) < 600_000


@pytest.mark.usefixtures("undrawn")
def test_without_traces_there_is_no_heading(results: Path) -> None:
    assert pictures.gallery_of(quickstart(results)) == []
    assert "Inside the detectors" not in render(results, ["quickstart"])


def test_traces_of_another_record_or_broken_ones_are_left_out_and_named(traced: Path) -> None:
    (one,) = traced.glob("quickstart/smoke/cells/deformable-*/traces.npz")
    one.write_bytes(one.read_bytes()[:100])
    (other,) = traced.glob("quickstart/smoke/cells/sparse-0.5-*/traces.npz")
    other.write_bytes(pack([scene()], "another key"))
    first = pictures.gallery_of(quickstart(traced))[0]
    assert "deformable" not in first.picture.alt
    assert (
        "Not shown, because traces.npz is missing or belongs to another record: deformable, sparse-0.5."
        in first.caption
    )
