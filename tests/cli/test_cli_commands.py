"""The other commands: what they print, their exit codes, and that the light ones import no torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text
from terminal import Terminal

import detrbench
from detrbench import cli
from detrbench.cli.app import commands
from detrbench.measure import counting, protocols
from detrbench.weights import catalogue

COMMANDS = ["run", "report", "list", "show", "status", "train", "validate", "doctor", "profile", "predict", "convert"]
LIGHT = [
    ["--help"],
    ["--version"],
    ["run", "--help"],
    ["list", "suites"],
    ["list", "models"],
    ["list", "parts"],
    ["list", "results"],
    ["status", "."],
    ["show", "quickstart"],
    ["show", "sparse_detr_r50"],
    ["weights", "list"],
    ["weights", "show", "sparse_detr/r50_rho0.3"],
    ["weights", "fetch", "dino/r50_4scale_12ep"],
    ["validate", "quickstart"],
    ["report"],
]


def test_light_commands_import_no_torch(tmp_path: Path) -> None:
    import_no_torch(LIGHT, tmp_path)


def test_a_profile_that_is_known_imports_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_folder", lambda: tmp_path / "cache" / "counts")
    counting.count("sparse_detr_tiny", {}, protocols.get("complexity").at(64, 96))
    known = [["profile", "sparse_detr_tiny", "--size", "64x96"]]
    import_no_torch(known, tmp_path, DETRBENCH_CACHE=str(tmp_path / "cache"))


def import_no_torch(commands: list[list[str]], tmp_path: Path, **environment: str) -> None:
    code = (
        "import contextlib, io, sys\n"
        "from detrbench import cli\n"
        f"for arguments in {commands!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "        cli.main(arguments)\n"
        "    assert 'torch' not in sys.modules, arguments\n"
    )
    environment |= {"PYTHONPATH": str(Path(detrbench.__file__).parent.parent), "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    assert f"detrbench {command}" in capsys.readouterr().out.split("Examples")[1]


def texts(command: Any) -> Iterator[str]:
    """What a command and its options say of themselves, those of its subcommands too."""
    yield command.help or ""
    yield from (parameter.help or "" for parameter in command.params if parameter.param_type_name == "option")
    for subcommand in getattr(command, "commands", {}).values():
        yield from texts(subcommand)


def test_help_loses_no_word_to_markup() -> None:
    said = [text for text in texts(commands) if "[" in text]
    assert any("tensorboard" in text for text in said)
    for text in said:
        assert Text.from_markup(text).plain == text.replace(r"\[", "["), text


def test_a_model_is_shown_with_its_released_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "focus_detr_r50", "--json", "--weights", str(tmp_path)]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["weights"]}
    assert list(found) == ["focus_detr/r50_12ep", "focus_detr/r50_24ep", "focus_detr/r50_36ep"]
    assert found["focus_detr/r50_36ep"] == {
        "name": "focus_detr/r50_36ep",
        "options": {"position_temperature": 20, "position_offset": 0.0},
        "published_AP": {"paper_top300": 50.4},
        "paper": "Focus-DETR, ICCV 2023, arXiv 2307.12612",
        "repository": catalogue.get("focus_detr/r50_36ep").code,
        "state": "to fetch",
    }
    (tmp_path / "focus_detr" / "r50_36ep").mkdir(parents=True)
    (tmp_path / "focus_detr" / "r50_36ep" / "focus_detr_r50_4scale_36ep_v3.zip").write_bytes(b"here")
    assert cli.main(["show", "focus_detr_r50", "--weights", str(tmp_path)]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines() if "paper_top300" in line] == [
        "fetch",
        "fetch",
        "here",
    ]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"detrbench {detrbench.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nonsense"], 2),
        (["list", "nonsense"], 2),
        (["show", "nonsense"], 2),
        (["validate", "nonsense"], 2),
        (["report"], 5),
        (["profile"], 2),
        (["profile", "sparse_detr_r51"], 2),
        (["profile", "sparse_detr_r50", "--size", "big"], 2),
        (["profile", "sparse_detr_r50", "--size", "0x5"], 2),
        (["profile", "sparse_detr_r50", "--protocol", "comon"], 2),
        (["profile", "sparse_detr_r50", "--set", "keep_rato=0.1"], 2),
        (["predict", "sparse_detr_r50", "gone.jpg"], 2),
        (["predict", "sparse_detr_r50", "gone.jpg", "--checkpoint", "gone.pth"], 2),
        (["convert", "gone.pth"], 2),
        (["convert", "gone.pth", "--model", "no_model"], 2),
        (["convert", "gone.safetensors", "--model", "sparse_detr_r50"], 2),
    ],
)
def test_exit_codes_of_mistakes(terminal: Terminal, arguments: list[str], code: int) -> None:
    found, out, err = terminal.type(*arguments)
    assert found == code, err
    assert out == ""
    assert "Traceback" not in err


def test_list_and_show_speak_json(terminal: Terminal) -> None:
    terminal.type("run", "demo.yaml")
    documents = {
        ("list", "suites"): "suites",
        ("list", "models"): "models",
        ("list", "parts"): "parts",
        ("list", "results"): "results",
        ("show", "quickstart"): "cells",
        ("show", "sparse_detr_r50"): "options",
        ("show", "demo:sparse-0.1"): "measures",
        ("show", "demo.yaml"): "cells",
    }
    for arguments, key in documents.items():
        code, out, err = terminal.type(*arguments, "--json")
        assert code == 0, err
        assert json.loads(out)[key]


def test_show_takes_a_cells_address(terminal: Terminal) -> None:
    code, out, _ = terminal.type("show", "focus_table6_keep_ratio:focus-0.3")
    assert code == 0
    assert "no results yet: detrbench run focus_table6_keep_ratio -k focus-0.3 --scale paper" in out
    terminal.type("run", "demo.yaml")
    folder = next(terminal.results.glob("demo/smoke/cells/sparse-0.1-*"))
    for name in ("demo:sparse-0.1", "dem:sparse-0.1@sm", "demo/smoke/sparse-0.1", str(folder)):
        code, out, _ = terminal.type("show", name)
        assert code == 0
        assert out.startswith("demo:sparse-0.1@smoke: sparse_detr_r50\n")
        assert "figure 10" in out
    terminal.type("run", "demo.yaml", "--scale", "paper", "--measure", "complexity")
    for name, says in (
        ("demo:sparse-0.1", "hint: name one: demo:sparse-0.1@paper, demo:sparse-0.1@smoke"),
        ("demo:sparse", "hint: name one: sparse-0.1, sparse-0.3"),
        ("demo:spars-0.1", "did you mean 'sparse-0.1'?"),
        ("sparse-0.1", "did you mean 'demo:sparse-0.1@paper'?"),
    ):
        code, out, err = terminal.type("show", name)
        assert (code, out) == (2, "")
        assert says in err


def test_a_trained_cell_is_named_by_its_address(terminal: Terminal) -> None:
    terminal.type("run", "demo.yaml", "--measure", "complexity")
    for name, says in (
        ("demo:sparse-0.1", "demo:sparse-0.1@smoke: no trained weights"),
        ("demo:sprse-0.1", "unknown cell of demo 'sprse-0.1'"),
        ("sparse_detr_r51", "unknown model 'sparse_detr_r51'"),
    ):
        for command in ("predict", "visualize"):
            code, out, err = terminal.type(command, name, "street.jpg")
            assert (code, out) == (2, "")
            assert says in err.splitlines()[0]


def test_a_model_is_shown_with_paper_code_weights_and_published_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "focus_detr_r50"]) == 0
    out = capsys.readouterr().out
    for says in ("Focus-DETR, ICCV 2023, arXiv 2307.12612", "huawei-noah/noah-research", "paper_top300=50.4"):
        assert says in out
    line = next(line for line in out.splitlines() if line.startswith("focus_table6_keep_ratio:focus-0.3"))
    assert line.split()[1:] == ["focus_detr/table6", "36", "50.4", "154"]


def test_bare_list_lists_everything(terminal: Terminal) -> None:
    code, out, err = terminal.type("list")
    assert code == 0
    assert [line for line in out.splitlines() if line.isupper()] == ["SUITES", "MODELS", "PARTS", "RESULTS"]
    assert "no results in results" in err
    assert "\\n" not in out  # a part's options stand on lines of their own


def test_of_many_names_the_nearest_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", "deformable_detr"]) == 2
    hint = capsys.readouterr().err.splitlines()[1]
    assert hint.startswith("hint: did you mean 'deformable_detr_r50'? also near: ")
    assert hint.endswith("; all: detrbench list models")
    assert len(hint) < 200


def test_validate_says_what_is_in_a_suite(terminal: Terminal) -> None:
    suite = terminal.folder / "demo.yaml"
    suite.write_text(suite.read_text().replace("model: null, published_only: true", "model: detector_of_the_future"))
    code, out, _ = terminal.type("validate", "demo.yaml")
    assert code == 0
    assert "4 cells at smoke" in out
    assert "not built yet: detector_of_the_future" in out
    (terminal.folder / "demo.yaml").write_text("name: demo\ntitel: x\n")
    code, _, err = terminal.type("validate", "demo.yaml")
    assert code == 2
    assert err.startswith("error: demo.yaml:2:1: titel: unknown key\nhint: did you mean 'title'?")


def test_validate_says_what_was_understood_of_data_and_each_mistake(terminal: Terminal) -> None:
    from PIL import Image

    for split in ("train", "val"):
        (terminal.folder / split / "images").mkdir(parents=True)
        (terminal.folder / split / "labels").mkdir()
        Image.new("RGB", (32, 32)).save(terminal.folder / split / "images" / "a.png")
        (terminal.folder / split / "labels" / "a.txt").write_text("1 0.5 0.5 0.5 0.5")
    (terminal.folder / "data.yaml").write_text("{names: [dog, cat], train: train/images, val: val/images}")
    code, out, err = terminal.type("validate", str(terminal.folder))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{terminal.folder}: YOLO layout, 2 classes: dog, cat",
        "  train: 1 images, 1 boxes, 0 images without one",
        "  val: 1 images, 1 boxes, 0 images without one",
        f"{terminal.folder}: ok",
    ]
    labels = terminal.folder / "val" / "labels" / "a.txt"
    labels.write_text("7 0.5 0.5 0.5 0.5\n1 0.9 0.5 0.5 0.5")
    code, out, err = terminal.type("validate", str(terminal.folder))
    assert code == 1
    assert f"{labels}: 1: unknown_category: class 7: names has 0, 1" in out
    assert f"{labels}: 2: box_outside: the box leaves the image by 4.8 pixels" in out
    assert "2 mistakes, 1 must be fixed before the data can be used" in err
    code, out, _ = terminal.type("validate", str(terminal.folder), "--json")
    document = json.loads(out)
    assert (code, document["layout"], document["classes"]) == (1, "YOLO", ["dog", "cat"])
    assert document["splits"]["train"] == {"images": 1, "boxes": 1, "without_boxes": 0}
    assert [finding["kind"] for finding in document["findings"]] == ["unknown_category", "box_outside"]


def status(backend: str) -> dict[str, dict[str, Any]]:
    return {"cpu": {"backend": backend, "why": "no compiler", "install": "install g++", "library": "op.so"}}


def test_doctor_says_what_is_missing_and_what_to_install(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    from detrbench.models.ops import build

    monkeypatch.setattr(build, "status", lambda: status("native"))
    code, out, _ = terminal.type("doctor")
    assert code == 0, out
    monkeypatch.setattr(build, "status", lambda: status("reference"))
    code, out, err = terminal.type("doctor")
    assert code == 4
    assert "slow reference: no compiler" in out
    assert "op on cpu: install g++" in out
    assert "missing: op on cpu" in err
    code, out, _ = terminal.type("doctor", "--json", "--data", "nowhere")
    assert code == 4
    assert {check["name"] for check in json.loads(out)["checks"] if check["state"] == "missing"} == {
        "op on cpu",
        "data",
    }


def test_profile_prints_parts_and_json(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Any] = []

    def count_once(*asked: Any, cross_check: bool) -> Any:
        counted.append(counted[0] if counted else real(*asked, cross_check=True))
        return counted[0]

    real = counting.count
    monkeypatch.setattr(counting, "count", count_once)
    arguments = ["profile", "sparse_detr_tiny", "--set", "keep_ratio=0.1", "--size", "64x96"]
    code, out, err = terminal.type(*arguments)
    assert code == 0, err
    assert "encoder" in out
    assert out.splitlines()[-1].startswith("total")
    more = terminal.type(*arguments, "--verbose")[1]
    assert more.startswith(out)
    assert "passes over" in more
    code, out, _ = terminal.type(*arguments, "--json")
    document = json.loads(out)
    assert document["options"] == {"keep_ratio": 0.1}
    assert document["protocol"] == "common@64x96"
    assert sum(document["gflops_by_part"].values()) == pytest.approx(document["gflops"])


def test_a_broken_pipe_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"{sys.executable} -m detrbench list models | head -1"
    environment = {"PYTHONPATH": str(Path(detrbench.__file__).parent.parent), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_show_prints_recipes_with_the_source_of_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    def lines(*arguments: str) -> list[list[str]]:
        assert cli.main(["show", *arguments, "--recipe"]) == 0
        return [re.split("  +", line.strip()) for line in capsys.readouterr().out.splitlines()]

    told = lines("dac_detr_swin_l")
    assert ["dac_table2:dac-align-24@paper"] in told
    last = told[told.index(["dac_table2:dac-align-24@paper"]) :]
    for line in (
        ["weight_decay", "0.05", "row"],
        ["lr_drops", "[20.0]", "scale hdetr_24"],
        ["clip_norm", "0.1", "default"],
        ["model.drop_path", "0.5", "row"],
        ["model.window_size", "12", "zoo"],
    ):
        assert line in last
    assert ["epochs", "10", "suite"] in lines("quickstart:sparse-0.3")
    equal = lines("focus_detr_r101")
    rows = (
        "focus_figure7_ap_gflops:focus-r101-0.3",
        "focus_table2_resnet101:focus-0.3",
        "focus_table10_convergence:focus-r101-36",
    )
    assert [", ".join(f"{row}@paper" for row in rows)] in equal
    assert ["warmup_steps", "1000", "scale focus_r101_36"] in equal


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["quickstart"], "--recipe: expected a model or a cell"), (["dino_tiny"], "dino_tiny: no suite has a row of it")],
)
def test_what_has_no_recipe_says_so(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", *arguments, "--recipe"]) == 2
    assert message in capsys.readouterr().err


def test_a_report_prints_the_recipes_of_a_run(terminal: Terminal) -> None:
    assert terminal.type("run", "demo.yaml", "--measure", "complexity", "--set", "lr_drops=[1]")[0] == 0
    code, told, _ = terminal.type("report", "demo", "--format", "md")
    assert code == 0
    recipes = told.partition("### Recipes, ")[2]
    for line in (
        "| epochs | 2 | suite | all |",
        "| lr\\_drops | [1.0] | --set | all |",
        "| clip\\_norm | 0.1 | default | all |",
        "| model.keep\\_ratio | 0.1 | row | sparse-0.1 |",
        "| model.keep\\_ratio | 0.3 | row | sparse-0.3 |",
    ):
        assert line in recipes, line
    assert terminal.type("report", "demo", "-o", "page.html")[0] == 0
    page = (terminal.folder / "page.html").read_text()
    assert "Recipes, smoke scale" in page
    assert re.search(r"lr_drops.{0,300}\[1\.0\].{0,300}--set", page, re.DOTALL)
