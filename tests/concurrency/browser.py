"""A headless Chromium, if the machine has one, controlled by the Chrome DevTools Protocol."""

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


def find_program() -> str | None:
    """Return the path of Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A browser with one page. It ends with the block and leaves no files."""

    def __init__(self, program: str) -> None:
        self._profile = Path(tempfile.mkdtemp(prefix="ticketremaster-browser-"))
        quiet = ["--headless", "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-dev-shm-usage"]
        as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
        options = [*quiet, *as_root, f"--window-size={WIDTH},{HEIGHT}", f"--user-data-dir={self._profile}"]
        command = [program, *options, "--remote-debugging-port=0", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._last_id = 0
        self._socket: Any = None

    def __enter__(self) -> Self:
        path = self._profile / "DevToolsActivePort"
        assert wait_for(lambda: path.exists() and path.read_text().count("\n") > 0, START_SECONDS), (
            "the browser did not start"
        )
        port = path.read_text().splitlines()[0]
        (page,) = [target for target in _get_json(f"http://127.0.0.1:{port}/json/list") if target["type"] == "page"]
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
        """Open a URL and wait until the page has loaded."""
        self._call("Page.navigate", url=url)
        assert wait_for(lambda: self.js("document.readyState + location.href") == f"complete{url}", START_SECONDS)

    def js(self, expression: str) -> Any:
        """Evaluate an expression in the page and return its value. Raises AssertionError if it throws."""
        done = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write a PNG of the page."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._last_id += 1
        self._socket.send(json.dumps({"id": self._last_id, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._last_id:
                assert "error" not in message, message["error"]
                return dict(message["result"])


def _get_json(url: str) -> Any:
    return json.loads(urllib3.request("GET", url, timeout=ANSWER_SECONDS).data)
