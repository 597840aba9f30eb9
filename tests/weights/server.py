"""A web server on this machine whose files, answers and accidents a test chooses."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Served:
    """A file. `cuts` are after how many bytes each answer in turn is cut off; `answers` codes given first, in turn."""

    content: bytes
    tag: str = '"v1"'
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    says: int | None = None  # bytes, if the server is wrong about them
    wait: threading.Event | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """What is served, and the requests that came: (method, path, headers)."""

    url: str
    files: dict[str, Served] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def serve(self, path: str, content: bytes, **how: Any) -> str:
        """Serves a file; its address."""
        self.files[path] = Served(content, **how)
        return self.url + path

    def ranges(self) -> list[str | None]:
        """Which piece each request asked for."""
        return [headers.get("Range") for _, _, headers in self.requests]


@contextmanager
def serving() -> Iterator[Server]:
    """A running server; it is gone afterwards."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *args: Any) -> None:
            pass

        def answer(self, body: bool) -> None:
            server.requests.append((self.command, self.path, dict(self.headers)))
            if self.path in server.redirects:
                self.send_response(302)
                self.send_header("Location", server.redirects[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            file = server.files.get(self.path)
            code = file.answers.pop(0) if file and file.answers else None if file else 404
            if file is None or code:
                self.send_response(int(code or 404))
                if "/resolve/" in self.path:  # how the hub says what is missing
                    repository = self.path.partition("/resolve/")[0]
                    there = any(path.startswith(repository + "/") for path in server.files)
                    self.send_header("X-Error-Code", "EntryNotFound" if there else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if "Location" in file.headers:  # as the hub does: what it knows of a file beside where that lies
                self.send_response(302)
                for name, value in {**file.headers, "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()
                return
            self.send_file(file, body)

        def send_file(self, file: Served, body: bool) -> None:
            start, total = 0, len(file.content)
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range", file.tag) == file.tag
            if asked and file.ranges and same:
                start = int(asked[1])
            if start >= total > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.send_header("ETag", file.tag)
            self.send_header("Content-Length", str((total if file.says is None else file.says) - start))
            for name, value in file.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if not body:
                return
            if file.wait:
                file.wait.wait(10)
            cut = file.cuts.pop(0) if file.cuts else None
            self.wfile.write(file.content[start:][:cut])
            self.close_connection = True

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{made.server_port}")
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def hub(server: Server, repository: str, revision: str, file: str, content: bytes) -> None:
    """Serves a file as the hub does: named by revision, kept elsewhere, its sha256 told beside the redirect."""
    address = server.serve("/cdn/" + file, content).replace("127.0.0.1", "localhost")  # another host than the hub's
    told = {"X-Repo-Commit": "c" * 40, "X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{sha256_of(content)}"'}
    server.serve(f"/{repository}/resolve/{revision}/{file}", b"", headers={**told, "Location": address})


def at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "ENDPOINT", address)
