"""`detrbench figure`, from what is typed to the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_results import MadeResults, times

from detrbench import cli


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeResults:
    monkeypatch.chdir(tmp_path)
    made = MadeResults(tmp_path)
    made.store.write_suite("demo", "smoke", {"name": "demo", "title": "A demonstration"})
    for cell, gflops, ap, latency in (("deformable", 4.0, 40.0, 10.0), ("sparse", 3.0, 39.8, 8.0)):
        made.gflops(cell, gflops)
        made.ap(cell, ap)
        made.latency(cell, times(len(cell), latency))
    return made


def test_a_figure_is_written_and_explained(made: MadeResults, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["figure", "ap_gflops", "-o", "fig.svg", "--width", "page"]) == 0
    out, told = capsys.readouterr()
    assert out == f"{Path('fig.svg').resolve()}\n"
    assert "Sparse DETR" in told
    assert "saves 25 % of Deformable DETR's GFLOPs at no clear difference in AP" in told
    assert "AP measured at smoke scale" in told
    text = Path("fig.svg").read_text()
    assert 'width="496.8pt"' in text
    assert "GFLOPs" in text
    assert cli.main(["figure", "ap_latency", "demo", "-o", "fig.pdf"]) == 0
    assert Path("fig.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(("typed", "code", "said"), [
    (["ap_glops"], 2, "ap_gflops"),
    (["ap_gflops", "nothing"], 2, "no results of suite 'nothing'"),
    (["corr_gflops"], 2, "fewer than two rows"),
    (["ap_gflops", "-o", "fig.docx"], 2, ".pdf"),
    (["ap_gflops", "--results", "elsewhere"], 5, "detrbench run quickstart"),
])  # fmt: skip
def test_mistakes(
    made: MadeResults, capsys: pytest.CaptureFixture[str], typed: list[str], code: int, said: str
) -> None:
    assert cli.main(["figure", *typed]) == code
    assert said in capsys.readouterr().err
    assert not list(Path().glob("fig*"))
