"""A file over a real connection: whatever happens on the way, it is there whole and right, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server import Server

from detrbench.errors import CheckpointError, EnvironmentLacking, FetchError
from detrbench.weights import download
from detrbench.weights.download import Source

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def get(url: str, target: Path, size: int | None = None, **headers: str) -> list[int]:
    """How many bytes were told to be here, in turn."""
    told: list[int] = []
    found = download.download(
        Source(url, headers, size), target, lambda part, digest: None, lambda n, _: told.append(n)
    )
    assert target.read_bytes() == CONTENT
    assert found == DIGEST
    return told


def left(folder: Path) -> list[str]:
    """What lies there but for locks."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_it_arrives_and_nothing_else_is_left(server: Server, tmp_path: Path) -> None:
    told = get(server.serve("/w.pth", CONTENT), tmp_path / "a" / "w.pth")
    assert (told[0], told[-1]) == (0, len(CONTENT))
    assert told == sorted(told)
    assert left(tmp_path) == ["a/w.pth"]


def test_a_cut_connection_is_gone_on_with_by_itself(server: Server, tmp_path: Path) -> None:
    get(server.serve("/w.pth", CONTENT, cuts=[1000, 500, 3]), tmp_path / "w.pth")
    assert server.ranges() == [None, "bytes=1000-", "bytes=1500-", "bytes=1503-"]
    assert server.requests[1][2]["If-Range"] == '"v1"'


def test_what_never_comes_is_told_and_the_next_call_goes_on(server: Server, tmp_path: Path) -> None:
    url = server.serve("/w.pth", CONTENT, cuts=[700, 0, 0, 0])
    with pytest.raises(FetchError) as caught:
        get(url, tmp_path / "w.pth")
    assert f"the connection was cut at 700 of {len(CONTENT)} bytes, 700 bytes are here" in caught.value.message
    assert "\n" not in caught.value.message
    assert left(tmp_path) == [".fetching/w.pth", ".fetching/w.pth.json"]
    told = get(url, tmp_path / "w.pth")
    assert (told[0], server.ranges()[-1]) == (700, "bytes=700-")
    assert left(tmp_path) == ["w.pth"]


def test_a_file_that_has_changed_meanwhile_is_taken_from_its_beginning(server: Server, tmp_path: Path) -> None:
    url = server.serve("/w.pth", b"x" * 900, cuts=[700, 0, 0, 0])
    with pytest.raises(FetchError):
        get(url, tmp_path / "w.pth")
    server.serve("/w.pth", CONTENT, tag='"v2"')
    assert get(url, tmp_path / "w.pth")[0] == 0


def test_another_address_never_goes_on_with_this_ones_bytes(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchError):
        get(server.serve("/old.pth", b"x" * 900, cuts=[700, 0, 0, 0]), tmp_path / "w.pth")
    get(server.serve("/w.pth", CONTENT), tmp_path / "w.pth")
    assert server.ranges()[-1] is None


def test_a_server_that_cannot_go_on_begins_again(server: Server, tmp_path: Path) -> None:
    get(server.serve("/w.pth", CONTENT, ranges=False, cuts=[1000]), tmp_path / "w.pth")


def test_all_of_it_was_here_when_the_last_call_was_killed(server: Server, tmp_path: Path) -> None:
    url = server.serve("/w.pth", CONTENT)
    part = tmp_path / ".fetching" / "w.pth"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    part.with_name("w.pth.json").write_text(f'{{"url": "{url}", "version": "\\"v1\\""}}')
    get(url, tmp_path / "w.pth")
    assert server.ranges() == [f"bytes={len(CONTENT)}-"]


def test_more_is_here_than_there_is(server: Server, tmp_path: Path) -> None:
    url = server.serve("/w.pth", CONTENT)
    part = tmp_path / ".fetching" / "w.pth"
    part.parent.mkdir()
    part.write_bytes(CONTENT + b"surplus")
    part.with_name("w.pth.json").write_text(f'{{"url": "{url}", "version": null}}')
    get(url, tmp_path / "w.pth")


def test_redirects_are_followed_and_secrets_are_not_handed_on(server: Server, tmp_path: Path) -> None:
    server.redirects["/first"] = "/second"
    server.redirects["/second"] = server.serve("/w.pth", CONTENT)
    get(server.url + "/first", tmp_path / "w.pth", Authorization="Bearer secret")
    assert [headers.get("Authorization") for _, _, headers in server.requests] == ["Bearer secret", None, None]


def test_a_tired_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    get(server.serve("/w.pth", CONTENT, answers=[503, 429]), tmp_path / "w.pth")
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"answers": [404]}, "the server answers 404 Not Found"),
        ({"answers": [403]}, "the server answers 403 Forbidden"),
        ({"answers": [503] * 3}, "the server answers 503 Service Unavailable"),
        ({"says": len(CONTENT) + 9}, f"the server has {len(CONTENT)} bytes, not the same as before"),
        ({"says": len(CONTENT) + 9, "ranges": False}, f"cut at {len(CONTENT)} of {len(CONTENT) + 9} bytes"),
    ],
)
def test_a_server_that_does_not_give_it(server: Server, tmp_path: Path, how: dict[str, Any], expected: str) -> None:
    with pytest.raises(FetchError) as caught:
        get(server.serve("/w.pth", CONTENT, **how), tmp_path / "w.pth")
    assert expected in caught.value.message
    assert caught.value.hint
    assert not (tmp_path / "w.pth").exists()


def test_another_size_than_published(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=f"expected 7 bytes, the server has {len(CONTENT)}"):
        get(server.serve("/w.pth", CONTENT), tmp_path / "w.pth", size=7)
    assert left(tmp_path) == []


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.001)
    for address in ("http://127.0.0.1:9/w.pth", "http://nowhere.invalid/w.pth"):
        with pytest.raises(FetchError, match="no connection: "):
            get(address, tmp_path / "w.pth")
    assert left(tmp_path) == []


def test_a_file_that_is_refused_leaves_nothing(server: Server, tmp_path: Path) -> None:
    def refuse(part: Path, digest: str) -> None:
        assert (part.read_bytes(), digest) == (CONTENT, DIGEST)
        raise CheckpointError("not the one")

    with pytest.raises(CheckpointError, match="not the one"):
        download.download(Source(server.serve("/w.pth", CONTENT)), tmp_path / "w.pth", refuse, lambda *_: None)
    assert left(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, block: bytes) -> int:
            raise OSError(number, os.strerror(number))

    def opened(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        file = real(path, mode, *args, **more)
        return Full(file) if mode in ("wb", "r+b") and path.parent.name == ".fetching" else file

    real: Callable[..., Any] = Path.open
    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(EnvironmentLacking, match="no space left while writing") as caught:
        get(server.serve("/w.pth", CONTENT), tmp_path / "w.pth")
    assert "--weights" in str(caught.value.hint)
    monkeypatch.undo()
    assert not (tmp_path / "w.pth").exists()
    get(server.url + "/w.pth", tmp_path / "w.pth")


def test_two_at_once_fetch_it_once(server: Server, tmp_path: Path) -> None:
    """Each in a process of its own; the second waits, and finds the file there."""
    gate = threading.Event()
    url = server.serve("/w.pth", CONTENT, wait=gate)
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from detrbench.weights.download import Source, download
        print(download(Source(sys.argv[1]), Path(sys.argv[2]), lambda part, digest: None, lambda *_: None))
    """)
    command = [sys.executable, "-c", program, url, str(tmp_path / "w.pth")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    while not server.requests:
        time.sleep(0.01)
    time.sleep(0.3)
    gate.set()
    assert [process.communicate(timeout=30)[0].strip() for process in running] == [DIGEST, DIGEST]
    assert len(server.requests) == 1
    assert left(tmp_path) == ["w.pth"]


def test_a_killed_process_leaves_what_came_and_no_lock(server: Server, tmp_path: Path) -> None:
    url = server.serve("/w.pth", CONTENT, cuts=[5000], says=len(CONTENT))
    program = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from detrbench.weights.download import Source, download
        def tell(here, total):
            if here >= 4000:
                os.kill(os.getpid(), signal.SIGKILL)
        import detrbench.weights.download as module
        module.BLOCK = 64
        download(Source(sys.argv[1]), Path(sys.argv[2]), lambda part, digest: None, tell)
    """)
    killed = subprocess.run([sys.executable, "-c", program, url, str(tmp_path / "w.pth")], check=False)
    assert killed.returncode == -9
    assert not (tmp_path / "w.pth").exists()
    get(url, tmp_path / "w.pth")
