"""From a name to weights that are checked, noted and held: by the web, by hand, by the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from server import Server, at, hub, sha256_of
from small_weights import one_line

from detrbench import cli, models
from detrbench.errors import CheckpointError, UsageError
from detrbench.files import sha256
from detrbench.weights import catalogue, fetching, store
from detrbench.weights.catalogue import Entry

Enter = Callable[..., Entry]
Make = Callable[..., Path]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """A command's exit code, and what it said."""
    capsys.readouterr()
    code = cli.main(["weights", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_fetch_by_name(
    server: Server, small: Enter, weights_of: Make, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = weights_of()
    entry = small("family/one", url=server.serve("/m.safetensors", made.read_bytes(), cuts=[2000]))
    code, out, _ = run(capsys, "fetch", "family/one")
    path = cache / "family" / "one" / "m.safetensors"
    assert (code, out) == (0, f"family/one: {path}\n")
    assert path.read_bytes() == made.read_bytes()
    assert len(server.requests) == 2
    note = json.loads(path.with_name("m.safetensors.json").read_text())
    assert (note["sha256"], note["origin"], note["size"]) == (sha256(made), entry.url, made.stat().st_size)
    assert run(capsys, "fetch", "family/one")[0] == 0
    assert len(server.requests) == 2, "what is here is not fetched again"
    assert run(capsys, "verify")[1] == f"family/one: ok, sha256 {sha256(made)}\n"


def test_the_folder_is_chosen_by_option_and_by_variable(
    server: Server, small: Enter, weights_of: Make, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small("backbones/b", None, url=server.serve("/b.pth", b"weights"))
    assert run(capsys, "fetch", "backbones/b", "--weights", str(tmp_path / "mine"))[0] == 0
    assert (tmp_path / "mine" / "backbones" / "b.pth").read_bytes() == b"weights"
    assert not cache.exists()
    assert run(capsys, "fetch", "backbones/b")[0] == 0
    assert (cache / "backbones" / "b.pth").is_file()


@pytest.mark.parametrize("digits", [8, 64])
def test_a_published_hash_is_held(
    server: Server, small: Enter, cache: Path, capsys: pytest.CaptureFixture[str], digits: int
) -> None:
    small("backbones/b", None, url=server.serve("/b.pth", b"other"), sha256="0123456789abcdef" * 4)
    small("backbones/c", None, url=server.url + "/b.pth", sha256=sha256_of(b"other")[:digits])
    code, _, err = run(capsys, "fetch", "backbones/b")
    assert code == 2
    assert one_line(err, "not backbones/b as released: sha256", "expected 0123456789abcdef")
    assert not (cache / "backbones" / "b.pth").exists()
    assert run(capsys, "fetch", "backbones/c")[0] == 0


def test_what_nobody_published_is_noted_and_held_even_when_the_file_is_gone(
    server: Server, small: Enter, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small("backbones/b", None, url=server.serve("/b.pth", b"first"))
    assert run(capsys, "fetch", "backbones/b")[0] == 0
    (cache / "backbones" / "b.pth").unlink()
    server.serve("/b.pth", b"second", tag='"v2"')
    code, _, err = run(capsys, "fetch", "backbones/b")
    assert code == 2
    assert one_line(err, "not the backbones/b of ", f"noted {sha256_of(b'first')[:16]}", "b.pth.json")
    assert not (cache / "backbones" / "b.pth").exists()
    (cache / "backbones" / "b.pth.json").unlink()
    assert run(capsys, "fetch", "backbones/b")[0] == 0


def test_a_changed_file_is_seen(server: Server, small: Enter, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = small("backbones/b", None, url=server.serve("/b.pth", b"first"))
    run(capsys, "fetch", "backbones/b")
    path = cache / "backbones" / "b.pth"
    before = path.stat()
    path.write_bytes(b"fjrst")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = store.held(entry)
    assert found is not None, "neither size nor time has changed"
    code, out, err = run(capsys, "verify")
    assert code == 1
    assert "not the backbones/b of " in out
    assert "1 file changed" in err
    path.write_bytes(b"second one")
    with pytest.raises(CheckpointError, match="not the backbones/b of "):
        store.held(entry)


def test_a_file_put_there_by_hand_is_used_and_noted(small: Enter, cache: Path) -> None:
    entry = small("backbones/b", None, url="https://example.invalid/b.pth")
    assert store.held(entry) is None
    (cache / "backbones").mkdir(parents=True)
    (cache / "backbones" / "b.pth").write_bytes(b"mine")
    held = store.held(entry)
    assert held is not None
    assert (held.sha256, held.origin) == (sha256_of(b"mine"), "placed here by hand")
    assert store.read_note(held.path) is not None


def test_a_file_that_fits_other_weights_is_told(
    server: Server, small: Enter, weights_of: Make, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = weights_of("deformable_detr_refine_tiny")
    small("family/plain", url=server.serve("/m.safetensors", wrong.read_bytes()))
    small("family/refine", "deformable_detr_refine_tiny", url=server.url + "/n.safetensors")
    code, _, err = run(capsys, "fetch", "family/plain")
    assert code == 2
    assert one_line(err, "m.safetensors is not family/plain: it fits family/refine")
    assert store.find(catalogue.get("family/plain")) is None
    assert not list(cache.rglob("*.safetensors"))
    code, _, err = run(capsys, "import", str(wrong), "--as", "family/plain")
    assert code == 2
    assert one_line(err, f"{wrong.name} is not family/plain: it fits family/refine")
    assert run(capsys, "import", str(wrong), "--as", "family/refine")[0] == 0
    assert store.held(catalogue.get("family/refine")) is not None


def test_an_import_without_a_name(
    small: Enter, weights_of: Make, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = weights_of()
    small("family/plain", by_hand="https://drive.example/1")
    small("family/refine", "deformable_detr_refine_tiny", by_hand="https://drive.example/2")
    code, out, _ = run(capsys, "import", str(made))
    assert (code, out) == (0, f"family/plain: {cache / 'family' / 'plain' / made.name}\n")
    assert made.exists()
    small("family/twin", by_hand="https://drive.example/3")
    code, _, err = run(capsys, "import", str(made))
    assert code == 2
    assert one_line(err, "fits family/plain, family/twin", "--as NAME")
    small("family/named", url=f"https://example.invalid/{made.name}")
    assert run(capsys, "import", str(made))[1].startswith("family/named: "), "the released name tells them apart"
    code, _, err = run(capsys, "import", str(weights_of("deformable_detr_tiny", num_queries=6)))
    assert code == 2
    assert one_line(err, "are of no weights in the catalogue", "detrbench convert")
    other = tmp_path / "other.safetensors"
    models.save_checkpoint(models.create("deformable_detr_tiny", **catalogue.get("family/plain").options), other)
    code, _, err = run(capsys, "import", str(other), "--as", "family/plain")
    assert code == 2
    assert one_line(err, "is another file", "remove it")


def test_a_file_in_another_format_than_the_released_one(
    small: Enter, weights_of: Make, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the hub's pytorch_model.bin, or what was unpacked from an archive: its name's ending says how it is read."""
    small("family/plain", url="https://example.invalid/released.zip")
    detector = models.create("deformable_detr_tiny", **catalogue.get("family/plain").options)
    torch.save(detector.state_dict(), tmp_path / "unpacked.pth")
    assert run(capsys, "import", str(tmp_path / "unpacked.pth"), "--as", "family/plain")[0] == 0
    held = store.held(catalogue.get("family/plain"))
    assert held is not None
    assert held.path == cache / "family" / "plain" / "unpacked.pth"
    models.load_checkpoint(detector, held.path)


def test_mistakes_of_the_user(
    small: Enter, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    small("family/plain", by_hand="https://drive.example/1")
    small("family/gone", url=server.url + "/gone.pth")
    junk = tmp_path / "junk.pth"
    junk.write_bytes(b"<html>quota exceeded</html>")
    for arguments, parts in (
        (["fetch", "family/plane"], ["unknown weights 'family/plane'", "did you mean 'family/plain'?"]),
        (["show", "family/plane"], ["unknown weights"]),
        (["list", "famly"], ["unknown family of weights 'famly'", "did you mean 'family'?"]),
        (["fetch", "family/plain"], ["it must be downloaded by hand from https://drive.example/1", "weights import"]),
        (["fetch", "family/gone"], ["/gone.pth: the server answers 404", "weights import"]),
        (["fetch", "hf:nonsense"], ["expected hf:ORGANISATION/REPOSITORY"]),
        (["import", str(tmp_path / "no.pth")], ["no.pth: no such checkpoint file"]),
        (["import", str(junk), "--as", "family/plain"], ["junk.pth: "]),
    ):
        code, _, err = run(capsys, *arguments)
        assert code == 2, err
        assert one_line(err, *parts), err
    assert not list(cache.rglob("*.pth"))


def test_a_broken_download_is_never_kept(
    server: Server, small: Enter, weights_of: Make, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the announced length, but not whole: as a proxy or a full disk on the server's side leaves it."""
    half = weights_of().read_bytes()[:3000]
    entry = small("family/plain", url=server.serve("/m.safetensors", half))
    code, _, err = run(capsys, "fetch", "family/plain")
    assert code == 2
    assert one_line(err, "not a complete safetensors file", "fetch the file again")
    assert store.find(entry) is None
    assert [p for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"] == []


def test_an_archive_of_one_checkpoint(tmp_path: Path) -> None:
    """Focus-DETR's files are archives; so is what torch.save writes."""
    detector = models.create("deformable_detr_tiny", hidden_dim=32, width=8)
    torch.save({"model": detector.state_dict()}, tmp_path / "inner.pth")
    for names in (["inner.pth"], ["readme.txt", "folder/inner.pth"]):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in names:
                archive.write(tmp_path / "inner.pth", name)
        report = models.load_checkpoint(detector, tmp_path / "a.zip")
        assert report.sha256 == sha256(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.write(tmp_path / "inner.pth", "a.pth")
        archive.write(tmp_path / "inner.pth", "b.pth")
    with pytest.raises(CheckpointError, match="expected an archive of one checkpoint, got 2"):
        models.load_checkpoint(detector, tmp_path / "two.zip")


def test_a_file_of_the_hub(server: Server, cache: Path) -> None:
    """The package reads where the hub is when it is imported: in a process of its own, as a user types it."""
    pytest.importorskip("huggingface_hub")
    hub(server, "org/repo", "v1", "w.bin", b"weights of the hub")
    variables = {"HF_ENDPOINT": server.url, "HF_TOKEN": "secret", "DETRBENCH_CACHE": str(cache.parent)}
    command = [sys.executable, "-m", "detrbench", "weights", "fetch", "hf:org/repo@v1/w.bin"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=60)
    path = cache / "hub" / "org" / "repo@v1" / "w.bin"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hub/org/repo@v1: {path}\n", "")
    assert path.read_bytes() == b"weights of the hub"
    sent = {where: headers.get("Authorization") for _, where, headers in server.requests if "w.bin" in where}
    assert sent == {"/org/repo/resolve/v1/w.bin": "Bearer secret", "/cdn/w.bin": None}


def test_a_repository_without_a_file(here: Server, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub(here, "org/repo", "main", "pytorch_model.bin", b"the usual one")
    assert run(capsys, "fetch", "hf:org/repo")[0] == 0
    assert (cache / "hub" / "org" / "repo" / "pytorch_model.bin").read_bytes() == b"the usual one"
    hub(here, "org/other", "main", "w.bin", b"not a usual name")
    code, _, err = run(capsys, "fetch", "hf:org/other")
    assert code == 2
    assert one_line(err, "holds none of model.safetensors, pytorch_model.bin", "name a file")


def test_what_the_hub_can_answer(
    here: Server, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(here, "org/changed", "v1", "w.bin", b"as announced")
    here.serve("/cdn/w.bin", b"as ann0unced")
    code, _, err = run(capsys, "fetch", "hf:org/changed@v1/w.bin")
    assert (code, one_line(err, "as released: sha256", sha256_of(b"as announced")[:16])) == (2, True), err
    here.serve("/cdn/w.bin", b"shorter")
    code, _, err = run(capsys, "fetch", "hf:org/changed@v1/w.bin")
    assert (code, one_line(err, "expected 12 bytes, the server has 7")) == (2, True), err
    code, _, err = run(capsys, "fetch", "hf:org/none@v1/w.bin")
    assert (code, one_line(err, "hf:org/none: no such repository, or a private one")) == (2, True), err
    code, _, err = run(capsys, "fetch", "hf:org/changed@v1/v.bin")
    assert (code, one_line(err, "hf:org/changed: no such file there")) == (2, True), err
    at("http://127.0.0.1:9", monkeypatch)
    code, _, err = run(capsys, "fetch", "hf:org/changed@v1/w.bin")
    assert (code, one_line(err, "no answer of the hub", "HF_ENDPOINT")) == (2, True), err
    assert not list(cache.rglob("w.bin"))


def test_the_hub_without_its_package(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match="need the package huggingface_hub") as caught:
        fetching.fetch(catalogue.get("transformers/deformable_detr_r50"), lambda *_: None, lambda *_: None)
    assert caught.value.hint == "pip install 'detrbench[hub]'"


def test_a_name_of_the_hub_that_is_in_the_catalogue() -> None:
    for name in ("hf:SenseTime/deformable-detr", str(catalogue.get("transformers/deformable_detr_r50").url)):
        assert fetching.entry_of(name).name == "transformers/deformable_detr_r50"


def test_an_unwritable_folder(server: Server, small: Enter, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small("backbones/b", None, url=server.serve("/b.pth", b"weights"))
    (tmp_path / "taken").write_text("a file")
    code, _, err = run(capsys, "fetch", "backbones/b", "--weights", str(tmp_path / "taken"))
    assert code == 4
    assert one_line(err, "cannot be written", "--weights")
