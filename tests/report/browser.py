"""A headless Chromium that is told over a pipe what to open: one for all tests of a process."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
]
_PATIENCE = 120  # seconds for one answer
_READS, _WRITES = (
    3,
    4,
)  # the descriptors over which Chromium speaks the DevTools protocol, a zero byte behind each message


class Browser:
    """One page at a time, as a reader with a mouse sees it.

    Args:
        profile: an empty folder.
    """

    def __init__(self, profile: Path) -> None:
        (theirs, ours), (mine, yours) = os.pipe(), os.pipe()
        theirs, yours = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs, yours))  # out of the way of 3 and 4

        def connect() -> None:
            os.dup2(theirs, _READS)
            os.dup2(yours, _WRITES)

        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}"]
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, preexec_fn=connect, pass_fds=(_READS, _WRITES), **quiet)
        self._ours, self._mine, self._rest = ours, mine, b""
        self._messages: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._session: str | None = None
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.tell("Page.enable")
        self.tell("Page.setLifecycleEventsEnabled", enabled=True)
        self.tell("Emulation.setFocusEmulationEnabled", enabled=True)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def tell(self, method: str, **parameters: Any) -> Any:
        """One command of the DevTools protocol; returns its result."""
        message = {"id": next(self._numbers), "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._ours, json.dumps(message).encode() + b"\0")
        answer = self._heard(lambda heard: heard.get("id") == message["id"])
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _heard(self, wanted: Callable[[dict[str, Any]], bool]) -> Any:
        """The first message since the page was opened that is wanted."""
        for message in self._messages:
            if wanted(message):
                return message
        while True:
            while b"\0" not in self._rest:
                assert select.select([self._mine], [], [], _PATIENCE)[0], "the browser does not answer"
                read = os.read(self._mine, 1 << 20)
                assert read, "the browser has ended"
                self._rest += read
            line, _, self._rest = self._rest.partition(b"\0")
            self._messages.append(json.loads(line))
            if wanted(self._messages[-1]):
                return self._messages[-1]

    def open(self, address: str, width: int = 1400, height: int = 900, dark: bool = False) -> None:
        """Loads a page, its scripts included."""
        self._messages.clear()
        self.tell("Page.navigate", url="about:blank")  # else another fragment of the same page would not load it
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])
        loader = self.tell("Page.navigate", url=address)["loaderId"]
        load = {"name": "load", "loaderId": loader}
        self._heard(lambda heard: load.items() <= heard.get("params", {}).items())

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is in the page."""
        found = self.tell("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"]["value"]

    def printed(self) -> bytes:
        """The page as PDF, without what a browser writes above and below."""
        printed = self.tell("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(printed["data"])
