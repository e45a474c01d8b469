"""Calls to the Flask apps of this process without a socket, because thousands of executions need fast calls.

`LocalHttp` carries the calls between services. `Caller` is a client of an orchestrator. `LocalAdapter` carries the
calls that User makes with `requests` to the fake SMU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any
from urllib.parse import unquote, urlencode

import requests
from flask import Flask
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from harness.api_client import ApiResponse
from services.chassis import json_codec

_CONSTANT = {
    "SCRIPT_NAME": "",
    "SERVER_NAME": "local.test",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}


def call(app: Flask, method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> ApiResponse:
    """Make one request as a WSGI server does. `target` is path and query."""
    path, _, query = target.partition("?")
    environ = {
        **_CONSTANT,
        "REQUEST_METHOD": method,
        "PATH_INFO": unquote(path),
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(body or b"")),
        "wsgi.input": BytesIO(body or b""),
    }
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        environ["CONTENT_TYPE" if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    return _run_app(app, environ)


def _run_app(app: Flask, environ: dict[str, Any]) -> ApiResponse:
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _error: Any = None) -> Callable[[bytes], object]:
        started[:] = [int(status.partition(" ")[0]), dict(headers)]
        return lambda _written: None

    chunks = app(environ, start_response)
    try:
        content = b"".join(chunks)
    finally:
        chunks.close()  # type: ignore[attr-defined]
    return ApiResponse(started[0], content, started[1])


class LocalHttp:
    """An HTTP transport to the Flask apps of this process, by their base URLs."""

    def __init__(self, apps: Mapping[str, Flask]) -> None:
        self._apps = apps

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        base = next(known for known in self._apps if url.startswith(known))
        answer = call(self._apps[base], method, url.removeprefix(base), body, headers)
        return answer.status, answer.body


class LocalAdapter(BaseAdapter):
    """An adapter of `requests` to one app of this process."""

    app: Flask

    def __init__(self, **_options: Any) -> None:
        super().__init__()

    def send(self, request: requests.PreparedRequest, **_options: Any) -> requests.Response:  # type: ignore[override]
        body = request.body.encode() if isinstance(request.body, str) else request.body
        answer = call(self.app, str(request.method), request.path_url, body, request.headers)
        response = requests.Response()
        response.status_code, response.url, response.request = answer.status, str(request.url), request
        response.headers.update(answer.headers)
        response.raw = HTTPResponse(BytesIO(answer.body), status=answer.status, preload_content=False)
        return response

    def close(self) -> None:
        """Nothing to close."""


class LocalPool:
    """A urllib3 pool to one app of this process. It has only the method that `Inbox` uses."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def request(self, method: str, url: str, fields: Mapping[str, str], headers: Mapping[str, str]) -> Any:
        path = "/" + url.removeprefix("http://").partition("/")[2]
        answer = call(self._app, method, f"{path}?{urlencode(fields)}", None, headers)
        return HTTPResponse(answer.body, status=answer.status)


class Caller:
    """A client of the public routes of an orchestrator, with a user's token."""

    def __init__(self, app: Flask, token: str) -> None:
        self._app = app
        self._authorization = {"Authorization": f"Bearer {token}"}

    def post(self, path: str, body: Mapping[str, Any], **headers: str) -> ApiResponse:
        """POST a JSON body."""
        sent = {**self._authorization, "Content-Type": "application/json", **headers}
        return call(self._app, "POST", path, json_codec.encode(body), sent)

    def get(self, path: str) -> ApiResponse:
        """GET a path."""
        return call(self._app, "GET", path, None, self._authorization)
