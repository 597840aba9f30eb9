"""What a training begins with: found, refused, part of the key, loaded, on record, in the plan and in the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from imagenet_files import write_detectron2, write_torchvision
from safetensors import safe_open

from detrbench import cli, files, yaml12
from detrbench.errors import UsageError
from detrbench.run import start
from detrbench.run.keys import Conditions, folder_name, training_key
from detrbench.suite import loading as suites
from detrbench.suite.cells import Cell
from detrbench.weights import catalogue, place, store

SUITE = """\
name: demo
title: A demonstration
variants:
  - {id: one, model: deformable_detr_r50}
scales:
  small:
    {data: shapes, num_train: 2, num_val: 1, image_size: 96, epochs: 1, batch_size: 2, init: imagenet,
     model: {hidden_dim: 32, num_heads: 2, ffn_dim: 32, num_queries: 10, num_encoder_layers: 1,
             num_decoder_layers: 1}}
measure: [accuracy]
"""
TRAINED = {"frozen_stages": 0}  # all of it
R50 = "https://download.pytorch.org/models/resnet50-0676ba61.pth"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights, and a suite in the current directory."""
    monkeypatch.setattr(place, "_chosen", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    Path("demo.yaml").write_text(SUITE)
    (tmp_path / "weights" / "backbones").mkdir(parents=True)
    return tmp_path / "weights" / "backbones"


def cell(model: dict[str, Any] | None = None, **settings: Any) -> Cell:
    text = SUITE.replace("num_decoder_layers: 1", ", ".join(["num_decoder_layers: 1", *_yaml(model or {})]))
    (found,) = suites.read(yaml12.parse(text, "demo.yaml")).cells("small", settings)
    return found


def _yaml(options: dict[str, Any]) -> list[str]:
    return [f"{name}: {value}" for name, value in options.items()]


def key(of: Cell) -> str:
    return training_key(of, Conditions(lambda *_: "data", lambda *_: 4, {}, "cpu"))


def test_where_the_file_is_missing_all_that_it_takes_is_said(cache: Path) -> None:
    with pytest.raises(UsageError) as caught:
        start.of(cell())
    place = cache / "resnet50-0676ba61.pth"
    assert caught.value.message == (
        f"put resnet50-0676ba61.pth ({R50}, sha256 0676ba61...) at {place} "
        "(detrbench weights fetch backbones/resnet50), or say init: none"
    )
    with pytest.raises(UsageError, match=r"put swin_large_patch4_window12_384_22k\.pth \(https://github\.com/.*\) at"):
        start.of(cell({"backbone": "swin_large"}))


def test_another_file_under_the_published_name_is_refused(cache: Path) -> None:
    (cache / "resnet50-0676ba61.pth").write_bytes(b"something else")
    with pytest.raises(UsageError, match=r"not backbones/resnet50 as released: sha256 .{16}\.\.\., expected 0676ba61"):
        start.of(cell())


def test_the_converted_file_does_as_well(cache: Path) -> None:
    (cache / "R-50.pkl").write_bytes(b"as detectron2 converts it")
    found = start.of(cell()).backbone
    assert found is not None
    assert (found.path, found.sha256) == (cache / "R-50.pkl", files.sha256(cache / "R-50.pkl"))
    assert found.source.endswith("ImageNetPretrained/torchvision/R-50.pkl")


def test_a_backbone_without_published_weights_says_so() -> None:
    other = {"backbone": "swin_tiny", "window_size": 12}
    for options, which in (({"backbone": "tiny"}, "tiny"), (other, "swin_tiny with window_size=12")):
        with pytest.raises(UsageError, match=f"nobody published ImageNet weights of backbone {which}; say init: none"):
            start.of(cell(options))


def test_what_is_frozen_never_stays_random() -> None:
    """The option that the message names unfreezes it."""
    with pytest.raises(UsageError, match=r"frozen_stages=2 freezes of the resnet50.*model\.frozen_stages=0"):
        start.of(cell(init="none"))
    begun = start.of(cell(TRAINED, init="none"))
    assert (begun.backbone, begun.detector) == (None, None)
    assert begun.remark == "the backbone starts from random values (init: none)"
    swin = {"backbone": "swin_tiny", "swin_frozen_stages": 2}
    with pytest.raises(UsageError, match=r"swin_frozen_stages=2 freezes of the swin_tiny"):
        start.of(cell(swin, init="none"))
    with pytest.raises(UsageError, match="lr_backbone: 0 would keep a random backbone"):
        start.of(cell(TRAINED, init="none", lr_backbone=0.0))


def test_a_tiny_backbone_needs_no_remark() -> None:
    assert start.of(cell({"backbone": "tiny"}, init="none")) == start.Start()


def test_files_are_found_from_the_suite_and_from_where_a_command_is_typed(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"weights")
    text = SUITE.replace("init: imagenet", "init: w.pth, init_from: w.pth")
    (found,) = suites.read(yaml12.parse(text, str(tmp_path / "suites" / "demo.yaml"))).cells("small", {})
    assert found.settings.init == found.settings.init_from == str(tmp_path / "suites" / "w.pth")
    assert cell(init="w.pth").settings.init == str(tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"init_from: expected a file, got '.*suites/w\.pth', which is not there"):
        start.of(found)
    with pytest.raises(UsageError, match=r"init: expected imagenet, none or a file, got '.*imagnet'"):
        start.of(cell(init="imagnet"))


def test_a_detectors_weights_have_a_name(cache: Path) -> None:
    name = "deformable_detr/r50"
    with pytest.raises(UsageError, match=rf"init_from: {name} is not here \(by hand from .*import FILE --as {name}\)"):
        start.of(cell(init_from=name))
    entry = catalogue.get(name)
    path = store.folder_of(entry) / (entry.file or "as_downloaded.pth")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    found = start.of(cell(init_from=name)).detector
    assert found is not None
    assert (found.path, found.sha256) == (path, files.sha256(path))


def test_the_key_is_of_what_the_file_holds(tmp_path: Path) -> None:
    for name, content in (("a.pth", b"one"), ("b.pth", b"one"), ("c.pth", b"two")):
        (tmp_path / name).write_bytes(content)
    first = key(cell(init="a.pth"))
    assert key(cell(init="b.pth")) == first
    assert key(cell(init="c.pth")) != first
    assert key(cell(init_from="a.pth")) != first
    assert key(cell(init_from="a.pth")) == key(cell(init="none", init_from="b.pth"))
    assert key(cell(TRAINED, init="none")) != key(cell(TRAINED, init="a.pth"))
    (tmp_path / "a.pth").write_bytes(b"two!")
    assert key(cell(init="a.pth")) not in (first, key(cell(init="c.pth")))


def test_a_cell_has_a_folder_for_each_beginning() -> None:
    assert len({folder_name(cell(init=init)) for init in ("imagenet", "none", "w.pth")}) == 3
    # What says nothing has the folder, and the key, that it had before there was anything to say.
    silent = suites.read(yaml12.parse(SUITE.replace(", init: imagenet", ""), "demo.yaml")).cells("small", {})
    assert folder_name(cell(init="none")) == folder_name(silent[0])


def run(*arguments: str) -> int:
    return cli.main(["run", "demo.yaml", "--weights", "weights", *arguments])


def test_the_plan_and_doctor_say_it_before_anything_starts(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--dry-run", "--json") == 0
    (item,) = json.loads(capsys.readouterr().out)["suites"][0]["items"]
    assert (item["measure"], item["state"]) == ("accuracy", "not_measured")
    assert item["why"].startswith(f"put resnet50-0676ba61.pth ({R50}")
    assert run("--dry-run", "--json", "--set", "init=none", "--set", "model.frozen_stages=0") == 0
    training, _ = json.loads(capsys.readouterr().out)["suites"][0]["items"]
    assert (training["state"], training["why"]) == ("todo", "the backbone starts from random values (init: none)")
    assert run("--set", "init=none") == 0
    assert "not measured: init: none would keep random values in what frozen_stages=2" in capsys.readouterr().err
    (cache / "R-101.pkl").write_bytes(b"anything")
    (cache / "resnet50-0676ba61.pth").write_bytes(b"anything")
    cli.main(["doctor", "--json", "--weights", str(cache.parent)])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["weights backbones/resnet101"]["state"] == "ok"
    assert "as released" in checks["weights backbones/resnet50"]["found"]
    missing = checks["weights backbones/swin_t"]
    assert missing["state"] == "note"
    assert missing["advice"].endswith(
        f"at {cache / 'swin_tiny_patch4_window7_224.pth'}: detrbench weights fetch backbones/swin_t"
    )


def records(measure: str) -> dict[str, Any]:
    (path,) = Path("results").glob(f"demo/small/cells/*/{measure}.json")
    return json.loads(path.read_text())["records"]


def test_training_begins_with_the_file_and_says_so(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a name in a suite to the weights that were trained, the record, the class names and the report."""
    state = write_detectron2("resnet50", cache / "R-50.pkl")
    assert run() == 0
    (began,) = records("training")["training"]["began_with"]
    assert began == {
        "part": "backbone",
        "source": "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/torchvision/R-50.pkl",
        "file": "R-50.pkl",
        "sha256": files.sha256(cache / "R-50.pkl"),
        "adapter": "detectron2",
        "replaced": [],
    }
    (weights,) = Path("results").glob("demo/small/cells/*/checkpoint/model.safetensors")
    with safe_open(weights, framework="pt") as trained:
        # One step at a rate of 2e-5 leaves no doubt where the trained stages came from; the stem is frozen.
        assert (trained.get_tensor("backbone.body.conv1.weight") == state["conv1.weight"]).all()
        last = trained.get_tensor("backbone.body.layer4.2.conv3.weight")
        assert 0 < (last - state["layer4.2.conv3.weight"]).abs().max() < 1e-4
    capsys.readouterr()
    assert cli.main(["report", "results", "--format", "md"]) == 0
    assert "began" not in capsys.readouterr().out  # ImageNet weights go without saying


def test_another_detector_begins_with_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    """For fewer classes; nobody asks for ImageNet weights then, which this backbone has none of."""
    tiny = ("--set", "model.backbone=tiny")
    assert run(*tiny, "--set", "init=none") == 0
    (weights,) = Path("results").glob("demo/small/cells/*/checkpoint/model.safetensors")
    shutil.move(weights, "detector.safetensors")
    shutil.rmtree("results")
    assert run(*tiny, "--set", "init_from=detector.safetensors", "--set", "model.num_classes=20") == 0
    (began,) = records("training")["training"]["began_with"]
    assert (began["part"], began["adapter"], began["sha256"]) == (
        "detector",
        "detrbench",
        files.sha256(Path("detector.safetensors")),
    )
    assert began["replaced"] == ["heads.class_embed.0.bias", "heads.class_embed.0.weight"]
    capsys.readouterr()
    assert cli.main(["report", "results", "--format", "md"]) == 0
    out = capsys.readouterr().out
    assert f"its detector began with detector.safetensors, sha256 {began['sha256'][:8]}..., its class heads anew" in out


def test_a_random_backbone_is_on_record_and_in_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--set", "init=none", "--set", "model.frozen_stages=0") == 0
    training = records("training")["training"]
    assert training["recipe"]["init"] == "none"
    assert [(began["part"], began["source"], began["file"]) for began in training["began_with"]] == [
        ("backbone", "random values", None)
    ]
    capsys.readouterr()
    assert cli.main(["report", "results", "--format", "md"]) == 0
    assert "its backbone began at random values (init: none)" in capsys.readouterr().out


def test_a_file_of_another_backbone_fails_the_training_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    write_torchvision("resnet50", Path("w.pth"))
    assert run("--set", "init=w.pth", "--set", "model.backbone=resnet101") == 1
    assert "w.pth: does not fit backbone resnet101: 255 missing" in capsys.readouterr().err.replace("\n", " ")
