"""Whatever takes weights takes a name, a file of the hub, or a file; and nothing is fetched unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from coco_files import write_coco
from PIL import Image
from server import Server, hub
from small_weights import MODEL, TINY, one_line

from detrbench import cli, models
from detrbench.cli.source import Source
from detrbench.data import DataSpec, open_dataset
from detrbench.errors import UsageError
from detrbench.files import sha256
from detrbench.results.store import ResultsStore
from detrbench.weights import named
from detrbench.weights.catalogue import Entry

Enter = Callable[..., Entry]
Make = Callable[..., Path]
OPTIONS = {**TINY, "num_classes": 12}  # as many as `shapes` has
SETTINGS = [part for key, value in OPTIONS.items() for part in ("--set", f"{key}={value}")]
SUITE = f"""\
name: demo
title: A demonstration
defaults: {json.dumps(OPTIONS)}
variants:
  - {{id: released, model: {MODEL}, checkpoint: family/one}}
  - {{id: of-the-hub, model: {MODEL}, checkpoint: "hf:org/repo"}}
  - {{id: of-mine, model: {MODEL}, checkpoint: mine.safetensors}}
  - {{id: gone, model: {MODEL}, checkpoint: family/two}}
scales:
  paper: {{data: coco, shortest: 64, longest: 80}}
measure: [accuracy]
"""


@pytest.fixture
def fetched(
    server: Server,
    here: Server,
    small: Enter,
    weights_of: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Server:
    """The same weights under a name, from the hub, and as a file; what else there is is not here."""
    content = weights_of(num_classes=12).read_bytes()
    for name in ("one", "two"):
        small(f"family/{name}", url=server.serve(f"/{name}.safetensors", content), options=OPTIONS)
    hub(server, "org/repo", "main", "model.safetensors", content)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.safetensors").write_bytes(content)
    assert cli.main(["weights", "fetch", "family/one", "hf:org/repo"]) == 0
    server.requests.clear()
    return server


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for split in ("train", "val"):
        write_coco(open_dataset(DataSpec("shapes", num_train=2, num_val=3, image_size=64), split), root, split)
    return root


def test_rows_of_a_suite(fetched: Server, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "demo.yaml").write_text(SUITE)
    arguments = ["run", "demo.yaml", "--data", str(photos), "--device", "cpu"]
    assert cli.main([*arguments, "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert "family/one, sha256 " in planned
    assert cli.main(arguments) == 0
    why = "checkpoint: family/two is not here (detrbench weights fetch family/two)"
    assert f"not measured: {why}: gone" in capsys.readouterr().err
    cells = {result.id: result for result in ResultsStore(Path("results")).cells("demo", "paper")}
    assert cells["gone"].state("accuracy")[0] == "not_measured"
    done = [cells[name] for name in ("released", "of-the-hub", "of-mine")]
    assert [cell.records["accuracy"]["common"]["num_images"] for cell in done] == [3, 3, 3]
    assert [cell.envelopes["accuracy"].get("official") for cell in done] == [
        f"family/one, sha256 {sha256(Path('mine.safetensors'))}"
    ] * 3, "the same weights, wherever they lie: measured once"
    assert fetched.requests == [], "nothing is fetched unasked"


@pytest.mark.parametrize("given", ["family/one", "hf:org/repo", "hf:org/repo/model.safetensors", "mine.safetensors"])
def test_commands_on_images(
    given: str, fetched: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Released weights say which options they have; the others need them said."""
    Image.new("RGB", (80, 64), "gray").save("a.png")
    loaded: list[Any] = []

    def detect(source: Source, detector: Any, *of: Any) -> list[Any]:
        loaded.append(detector)
        return []

    def look(source: Source, *of: Any) -> list[Any]:
        loaded.append(source.load("cpu"))
        return []

    monkeypatch.setattr("detrbench.cli.predict.detect", detect)
    monkeypatch.setattr("detrbench.cli.visualize._look", look)
    settings = [] if given == "family/one" else SETTINGS
    for command in ("predict", "visualize"):
        assert cli.main([command, MODEL, "a.png", "--checkpoint", given, "--device", "cpu", *settings]) == 0
    assert cli.main(["convert", given, "--model", MODEL, "--to", "ours.safetensors", *settings]) == 0
    loaded.append(models.create(MODEL, **OPTIONS))
    models.load_checkpoint(loaded[-1], "ours.safetensors")
    expected = models.create(MODEL, **OPTIONS)
    models.load_checkpoint(expected, "mine.safetensors")
    for detector in loaded:
        assert all(map(torch.equal, detector.state_dict().values(), expected.state_dict().values()))
    assert fetched.requests == []


def test_what_is_here_is_not_asked_for_again(fetched: Server, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["weights", "fetch", "hf:org/repo", "hf:org/repo/model.safetensors", "family/one"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert fetched.requests == []


def test_training_begins_with_them(
    fetched: Server, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", MODEL, "--data", str(photos), "--dry-run", "--init-from"]
    for given in ("family/one", "hf:org/repo", str(tmp_path / "mine.safetensors")):
        capsys.readouterr()
        assert cli.main([*command, given]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["scales"]["own"]["init_from"] == given
    assert cli.main([*command, "family/two"]) == 2
    why = "error: init_from: family/two is not here (detrbench weights fetch family/two)\n"
    assert capsys.readouterr().err.endswith(f"without one\n{why}")


@pytest.mark.parametrize(
    ("command", "given", "expected"),
    [
        ("predict", "family/two", "--checkpoint: family/two is not here (detrbench weights fetch family/two)"),
        ("visualize", "family/two", "--checkpoint: family/two is not here (detrbench weights fetch family/two)"),
        ("predict", "hf:a/b@v1/w.bin", "hf:a/b@v1/w.bin is not here (detrbench weights fetch hf:a/b@v1/w.bin)"),
        ("predict", "hf:a/b", "--checkpoint: hf:a/b is not here (detrbench weights fetch hf:a/b)"),
        ("predict", "hf:a", "hf:a: expected hf:ORGANISATION/REPOSITORY[@REVISION][/FILE]"),
        ("predict", "hf:a/b/../../c", "expected hf:ORGANISATION/REPOSITORY[@REVISION][/FILE]"),
        ("predict", "family/onne", "expected a file, got 'family/onne', which is not there"),
        ("predict", "gone.pth", "expected a file, got 'gone.pth', which is not there"),
        ("predict", "backbones/b", "backbones/b: weights of a backbone, not of a detector"),
    ],
)
def test_what_is_not_here_is_one_line(
    command: str,
    given: str,
    expected: str,
    fetched: Server,
    small: Enter,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = small("backbones/b", None, url=f"{fetched.url}/b.pth")
    (cache / "backbones").mkdir()
    (cache / "backbones" / str(entry.file)).write_bytes(b"a backbone")
    Image.new("RGB", (80, 64), "gray").save("a.png")
    capsys.readouterr()
    assert cli.main([command, MODEL, "a.png", "--checkpoint", given, "--device", "cpu"]) == 2
    err = capsys.readouterr().err
    assert one_line(err, expected), err
    assert ("did you mean 'family/one'?" in err) == (given == "family/onne")
    assert fetched.requests == []


def test_a_folder_is_named_for_a_file_that_is_called_as_weights_are(fetched: Server, cache: Path) -> None:
    Path("family").mkdir()
    Path("family/one").write_bytes(b"mine")
    assert named.find("./family/one", "checkpoint").path == Path("family/one")
    assert named.find("family/one", "checkpoint").path == cache / "family" / "one" / "one.safetensors"


def test_the_folder_of_weights_is_chosen_for_each_command(
    fetched: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (80, 64), "gray").save("a.png")
    command = ["predict", MODEL, "a.png", "--checkpoint", "family/one", "--device", "cpu", "--weights"]
    assert cli.main([*command, str(tmp_path / "elsewhere")]) == 2
    assert one_line(capsys.readouterr().err, "family/one is not here")


def test_two_files_of_one_name_in_a_repository(server: Server, here: Server, cache: Path) -> None:
    """Each is itself: neither passes for the other, nor for the repository's usual file."""
    for folder in ("a", "b"):
        hub(server, "org/repo", "main", f"{folder}/w.bin", folder.encode())
        assert cli.main(["weights", "fetch", f"hf:org/repo/{folder}/w.bin"]) == 0
    assert [named.find(f"hf:org/repo/{each}/w.bin", "").path.read_bytes() for each in "ab"] == [b"a", b"b"]
    for absent in ("hf:org/repo", "hf:org/repo/a/v.bin", "hf:org/repo@v1/a/w.bin"):
        with pytest.raises(UsageError, match="is not here"):
            named.find(absent, "checkpoint")


def test_options_are_as_the_weights_were_trained_unless_another_is_said(small: Enter, cache: Path) -> None:
    released = named.Weights(
        Path("w.pth"),
        small("family/one", "sparse_detr_tiny", options={**TINY, "keep_ratio": 0.3, "position_offset": 0.0}),
    )
    assert released.options("sparse_detr_tiny", {})["keep_ratio"] == 0.3
    told = released.options("sparse_detr_tiny", {"keep_ratio": 0.5})
    assert (told["keep_ratio"], told["position_offset"]) == (0.5, 0.0)
    with pytest.raises(UsageError, match="weights of another detector: encoder is sparse, here deformable"):
        released.options(MODEL, {})
    assert named.Weights(Path("w.pth")).options(MODEL, {"num_queries": 7}) == {"num_queries": 7}


def test_a_cell_is_asked_with_the_weights_it_was_measured_with(
    fetched: Server, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo.yaml").write_text(SUITE)
    assert cli.main(["run", "demo.yaml", "--data", str(photos), "--device", "cpu", "-k", "released or gone"]) == 0
    cells = {result.id: result.folder for result in ResultsStore(Path("results")).cells("demo", "paper")}
    Image.new("RGB", (80, 64), "gray").save("a.png")
    capsys.readouterr()
    assert cli.main(["predict", str(cells["released"]), "a.png", "--threshold", "0", "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["detections"]
    assert cli.main(["predict", str(cells["gone"]), "a.png", "--device", "cpu"]) == 2
    assert one_line(capsys.readouterr().err, "family/two is not here (detrbench weights fetch family/two)")


def test_finding_them_imports_no_torch_and_asks_no_network() -> None:
    code = (
        "import socket, sys\n"
        "def cut(*of, **how): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = cut\n"
        "from detrbench.errors import UsageError\n"
        "from detrbench.weights import named\n"
        "for name in ('sparse_detr/r50_rho0.3', 'hf:a/b', 'hf:a/b@v1/w.bin', 'w.pth'):\n"
        "    try:\n        named.find(name, 'checkpoint')\n"
        "    except UsageError as error:\n        print(error.message)\n"
        "assert not {'torch', 'huggingface_hub'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"DETRBENCH_CACHE": "/nowhere"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 4
