"""`detrbench train` as it really is, on a few tiny generated images: trained, killed, gone on with, told and drawn."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from coco_files import write_coco
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from terminal import tiny_weights

from detrbench import cli
from detrbench.data import DataSpec, open_dataset
from detrbench.errors import UsageError

MODEL = "efficient_detr_tiny"
OPTIONS = {"width": 8, "hidden_dim": 64, "num_heads": 2, "ffn_dim": 32, "num_queries": 10}
SMALL = [
    *(part for key, value in OPTIONS.items() for part in ("-s", f"model.{key}={value}")),
    *("-s", "model.num_encoder_layers=1", "-s", "model.num_decoder_layers=1"),
    *("-s", "epochs=2", "-s", "lr=0.001"),
]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder of generated images."""
    folder = tmp_path_factory.mktemp("data") / "cells"
    for split in ("train", "val"):
        write_coco(open_dataset(DataSpec("shapes", num_train=5, num_val=3, image_size=64), split), folder, split)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def counted_on_a_small_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations are counted once, on 64 x 64 pixels, instead of at the sizes of COCO."""
    from detrbench.measure import counting
    from detrbench.measure.inputs import Inputs

    real, small = counting.count, Inputs.single(64, 64)
    monkeypatch.setattr(
        counting, "count", lambda model, options, rule, anew: real(model, options, rule.on(small), anew=anew)
    )


def steps_taken(monkeypatch: pytest.MonkeyPatch, kill_at: str | None = None) -> list[str]:
    """The measures that are really taken."""
    from detrbench.run import steps

    taken: list[str] = []
    real = steps.take

    def take(item: Any, *more: Any) -> Any:
        taken.append(item.measure)
        if item.measure == kill_at:
            raise KeyboardInterrupt
        return real(item, *more)

    monkeypatch.setattr(steps, "take", take)
    return taken


def test_from_a_folder_to_ap_drawings_and_a_report(
    cells: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", MODEL, "--data", str(cells), *SMALL, "--threshold", "0", "--tensorboard"]
    with monkeypatch.context() as patch:
        taken = steps_taken(patch, kill_at="accuracy")
        assert cli.main(arguments) == 130
        assert taken == ["complexity", "training", "accuracy"]
    told = capsys.readouterr().err
    assert f"{cells}: COCO layout" in told
    assert "train: 5 images" in told
    assert "begins with backbone none; 2 epochs, 4 images a step; learning rate 0.001, of the backbone 0.001" in told
    with monkeypatch.context() as patch:
        taken = steps_taken(patch)
        assert cli.main([*arguments, "--json"]) == 0
        assert taken == ["accuracy", "pictures"]
    made = json.loads(capsys.readouterr().out)
    (cell,) = (here / "results" / "cells" / "own" / "cells").iterdir()
    assert made["cell"] == str(cell.relative_to(here))
    record = json.loads((cell / "accuracy.json").read_text())["records"]["common"]
    assert made["accuracy"] == record
    assert record["num_images"] == 3
    history = json.loads((cell / "training.json").read_text())["records"]["training"]
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1, 2]
    events = EventAccumulator(str(cell / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss/total")] == [2, 4]
    assert [e.value for e in events.Scalars("evaluation/AP")] == pytest.approx([e["AP"] for e in history["epochs"]])
    assert Path(made["weights"]).is_file()
    drawn = [Image.open(path).size for path in made["predictions"]]
    assert drawn == [open_dataset(DataSpec("coco", path=cells), "val")[i].image.size for i in range(3)]
    page = Path(made["report"]).read_text()
    assert "Own data: cells" in page
    assert MODEL in page
    # Once more: nothing is left to do, and people are told the figure that the record holds.
    with monkeypatch.context() as patch:
        taken = steps_taken(patch)
        patch.setattr("detrbench.report.render", lambda *of: "a report")  # it was looked at above
        assert cli.main(arguments) == 0
        assert taken == []
    out, err = capsys.readouterr()
    assert out.startswith(f"AP {record['ap']['value']:.1f}")
    assert "on 3 images\n" in out
    follow = re.search("next: detrbench (predict .*) PHOTO (.*)", err)
    assert follow is not None
    assert follow[1].startswith("predict cells:")
    photo = next(path for path in cells.rglob("*") if path.suffix in (".jpg", ".png"))
    assert cli.main([*shlex.split(follow[1]), str(photo), *shlex.split(follow[2])]) == 0
    assert (here / "boxes.png").is_file()


def test_the_suite_that_it_stands_for_is_one_that_run_takes(
    cells: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", MODEL, "--data", str(cells), *SMALL, "--name", "mine", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert not (here / "results").exists()
    suite = yaml.safe_load(text)
    assert suite["name"] == "mine"
    assert suite["scales"]["own"]["model"]["hidden_dim"] == 64
    (here / "mine.yaml").write_text(text)
    keys = []
    for command in (["run", "mine.yaml"], ["train", MODEL, "--data", str(cells), *SMALL, "--name", "mine"]):
        assert cli.main([*command, "--dry-run", *(["--json"] if command[0] == "run" else [])]) == 0
        keys.append(capsys.readouterr().out)
    assert {item["state"] for item in json.loads(keys[0])["suites"][0]["items"]} == {"todo"}
    assert keys[1] == text


def test_the_weights_to_begin_with_are_handed_on(cells: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", MODEL, "--data", str(cells), *SMALL, "--dry-run"]
    assert cli.main([*arguments, "--init-from", "gone.pth"]) == 2
    assert f"init_from: expected a file, got '{here / 'gone.pth'}'" in capsys.readouterr().err
    weights = tiny_weights(MODEL, [f"{key}={value}" for key, value in OPTIONS.items()], here)
    assert cli.main([*arguments, "--init-from", weights.name]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["scales"]["own"]["init_from"] == str(weights)
    assert cli.main([*arguments, "--init-from", weights.name, "-s", "init_from=other.pth"]) == 2
    assert "expected one of them" in capsys.readouterr().err


def test_several_processes_are_started_where_they_are_asked_for(
    cells: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from detrbench.run import team

    def launched(count: int, device: str) -> Any:
        raise UsageError(f"{count} processes on {device}")

    monkeypatch.setattr(team, "launched", launched)
    given = ("--gpus", "2", "--device", "cpu", "-s", "micro_batch=1")
    assert cli.main(["train", MODEL, "--data", str(cells), *SMALL, *given]) == 2
    assert "2 processes on cpu" in capsys.readouterr().err
    assert cli.main(["train", MODEL, "--data", str(cells), *SMALL, *given[:4]]) == 2
    assert "micro_batch" in capsys.readouterr().err  # which the processes share


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["efficient_detr_tny"], "unknown model 'efficient_detr_tny'"),
        ([MODEL, "-s", "epocs=3"], "--set epocs: unknown key"),
        ([MODEL, "-s", "epochs=0"], "error: epochs: expected a whole number, 1 or more, got 0"),
        ([MODEL, "-s", "limit=0"], "limit: expected an integer of at least 1"),
        ([MODEL, "-s", "shortest=16"], "shortest: expected at least 32, got 16"),
        ([MODEL, "-s", "path=elsewhere"], "--set path: the data are those of --data"),
        ([MODEL, "-s", "shortest=99999"], "shortest: expected at most 16384, got 99999"),
        ([MODEL, "--name", "a/b"], "name: expected a name of letters"),
        ([MODEL, "--data", "nowhere"], "no data set at nowhere: there is no such folder"),
    ],
)
def test_mistakes_are_one_line(
    cells: Path, here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], what: str
) -> None:
    data = [] if "--data" in arguments else ["--data", str(cells)]
    assert cli.main(["train", *arguments, *data]) == 2
    assert what in capsys.readouterr().err
    assert not (here / "results").exists()


def test_a_training_set_alone_is_not_enough(cells: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(cells, here / "half")
    (path,) = (here / "half" / "annotations").glob("*val*")
    path.unlink()
    assert cli.main(["train", MODEL, "--data", "half"]) == 2
    assert "no annotations of split 'val'" in capsys.readouterr().err
