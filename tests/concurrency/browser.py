"""A real browser without a window: Chromium where the machine has one, driven over its own protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import urllib3
import websocket

from harness.runtime.process import wait_for

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_SECONDS, ANSWER_SECONDS = 30.0, 15.0
WIDTH, HEIGHT = 1440, 900


def found() -> str | None:
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page. Ended, with its files, at the end of the block."""

    def __init__(self, program: str) -> None:
        self._profile = Path(tempfile.mkdtemp(prefix="ticketremaster-browser-"))
        quiet = ["--headless", "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-dev-shm-usage"]
        as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
        options = [*quiet, *as_root, f"--window-size={WIDTH},{HEIGHT}", f"--user-data-dir={self._profile}"]
        command = [program, *options, "--remote-debugging-port=0", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._said = 0
        self._socket: Any = None

    def __enter__(self) -> Self:
        where = self._profile / "DevToolsActivePort"
        assert wait_for(lambda: where.exists() and where.read_text().count("\n") > 0, START_SECONDS), (
            "no browser came up"
        )
        port = where.read_text().splitlines()[0]
        (page,) = [one for one in _json(f"http://127.0.0.1:{port}/json/list") if one["type"] == "page"]
        self._socket = websocket.create_connection(
            page["webSocketDebuggerUrl"], timeout=ANSWER_SECONDS, suppress_origin=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
        self._process.terminate()
        self._process.wait(START_SECONDS)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, url: str) -> None:
        """Go there; returns when the page has loaded."""
        self._call("Page.navigate", url=url)
        assert wait_for(lambda: self.js("document.readyState + location.href") == f"complete{url}", START_SECONDS)

    def js(self, expression: str) -> Any:
        """What an expression comes to in the page. Raises AssertionError for one that throws."""
        done = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """A picture of the page as it is, PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._said += 1
        self._socket.send(json.dumps({"id": self._said, "method": method, "params": params}))
        while True:
            heard = json.loads(self._socket.recv())
            if heard.get("id") == self._said:
                assert "error" not in heard, heard["error"]
                return dict(heard["result"])


def _json(url: str) -> Any:
    return json.loads(urllib3.request("GET", url, timeout=ANSWER_SECONDS).data)
