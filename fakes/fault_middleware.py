"""WSGI middleware of a fake. It records each call and plays the fault that hits it."""

import io
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from fakes import socket_faults
from fakes.control import FakeState
from fakes.faults import Fault

WAIT = "fakes.wait"  # environ key of a function that a route calls before its effect. A `hang` waits in it.
OVERRIDE = "fakes.override"  # environ key of the answer that a `status` fault gives after the effect
MAX_BODY_BYTES = 1 << 20
WITHOUT_FAULTS = ("/_control", "/health", "/inbox", "/v3", "/elements")

Environ = dict[str, Any]
WsgiApp = Callable[..., Iterable[bytes]]
Summary = Callable[[Any], Any]


def wait_for_hang(environ: Environ) -> None:
    """Wait if a `hang` is scripted for this call."""
    environ.get(WAIT, lambda: None)()


class FaultMiddleware:
    """The middleware of one fake.

    `default_body` makes the body of a `status` fault without one. `summarize` selects the part of an answer that the
    journal stores. `mount` is a second path prefix of the fake.
    """

    def __init__(
        self, app: WsgiApp, state: FakeState, default_body: Callable[[int], Any], summarize: Summary, mount: str = ""
    ) -> None:
        self.app, self.state, self.default_body, self.summarize, self.mount = app, state, default_body, summarize, mount
        self.plays: dict[str, Callable[[Fault, Environ], Response]] = {
            "refuse": self._refuse,
            "reset": lambda fault, environ: socket_faults.reset(environ),
            "hang": self._hang,
            "late": self._late,
            "drop": self._drop,
            "truncate": self._truncate,
            "status": self._status,
        }

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self.mount and environ["PATH_INFO"].startswith(self.mount + "/"):
            environ["PATH_INFO"] = environ["PATH_INFO"][len(self.mount) :]
        path = environ["PATH_INFO"]
        try:
            sent = _read_call(environ)
            has_no_faults = path == "/" or any(path == p or path.startswith(p + "/") for p in WITHOUT_FAULTS)
            answer = self._call_app(environ) if has_no_faults else self._record_and_play(environ, path, sent)
        except HTTPException as refusal:
            answer = refusal.get_response(environ)
        finally:
            self.state.save()
        return answer(environ, start_response)

    def _call_app(self, environ: Environ) -> Response:
        return Response.from_app(self.app, environ, buffered=True)

    def _record_and_play(self, environ: Environ, path: str, sent: dict[str, Any]) -> Response:
        method = environ["REQUEST_METHOD"]
        key = environ.get("HTTP_IDEMPOTENCY_KEY")
        call, fault = self.state.record_call(method, path, sent, key)
        try:
            answer = self.plays[fault.kind](fault, environ) if fault else self._call_app(environ)
            self.state.record_answer(call, answer.status_code, self._summarize(answer))
            return answer
        finally:
            correlation = {"correlation_id": environ.get("HTTP_X_CORRELATION_ID", "-")}
            outcome = call["status"] or call["fault"]
            logging.getLogger(self.state.service).info("%s %s %s", method, path, outcome, extra=correlation)

    def _summarize(self, answer: Response) -> Any:
        body = answer.get_json(silent=True)  # None for HEAD
        return self.summarize(body) if isinstance(body, dict) else None

    def _refuse(self, fault: Fault, environ: Environ) -> Response:
        socket_faults.refuse(fault.ms)
        socket_faults.reset(environ)

    def _hang(self, fault: Fault, environ: Environ) -> Response:
        if not fault.effect:
            self.state.wait(fault.ms)
            socket_faults.reset(environ)
        environ[WAIT] = lambda: self.state.wait(fault.ms)
        return self._call_app(environ)

    def _late(self, fault: Fault, environ: Environ) -> Response:
        answer = self._call_app(environ)
        self.state.wait(fault.ms)
        return answer

    def _drop(self, fault: Fault, environ: Environ) -> Response:
        self._call_app(environ)
        socket_faults.reset(environ)

    def _truncate(self, fault: Fault, environ: Environ) -> Response:
        answer = self._call_app(environ)
        socket_faults.truncate(environ, answer.status, list(answer.headers.items()), answer.get_data())

    def _status(self, fault: Fault, environ: Environ) -> Response:
        body = self.default_body(fault.status) if fault.body is None else fault.body
        if fault.effect:
            environ[OVERRIDE] = (fault.status, body)
            self._call_app(environ)
        if isinstance(body, str):
            return Response(body, fault.status, headers=fault.headers)
        return Response(json.dumps(body), fault.status, headers=fault.headers, content_type="application/json")


def _read_call(environ: Environ) -> dict[str, Any]:
    """Merge the query and body of a call. The application can still read the body."""
    request = Request(environ)
    request.max_content_length = MAX_BODY_BYTES
    body = request.get_data()
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
    sent: dict[str, Any] = request.args.to_dict()
    if request.is_json:
        parsed = request.get_json(silent=True)
        return sent | parsed if isinstance(parsed, dict) else sent
    if request.mimetype == "application/x-www-form-urlencoded":
        return sent | dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    return sent
