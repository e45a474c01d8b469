"""The door of a fake: notes each call, plays the fault that hits it, otherwise lets it in."""

import io
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from fakes import socket_faults
from fakes.control import Plane
from fakes.faults import Fault

HOLD = "fakes.hold"  # in environ: call it where the effect begins; a `hang` waits there
OVERRIDE = "fakes.override"  # in environ: the answer a `status` fault gives after the effect
LARGEST_BODY = 1 << 20
UNTOUCHED = ("/_control", "/health", "/inbox")

Environ = dict[str, Any]
WsgiApp = Callable[..., Iterable[bytes]]
Summary = Callable[[Any], Any]


def hold(environ: Environ) -> None:
    """Wait here if a `hang` was scripted for this call."""
    environ.get(HOLD, lambda: None)()


class Gate:
    """WSGI middleware. `excuse` is the body of a `status` fault that names none; `summary` picks what of an
    answer the journal keeps; `mount` is a path prefix under which the fake answers too."""

    def __init__(
        self, app: WsgiApp, plane: Plane, excuse: Callable[[int], Any], summary: Summary, mount: str = ""
    ) -> None:
        self.app, self.plane, self.excuse, self.summary, self.mount = app, plane, excuse, summary, mount
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
            sent = _read(environ)
            untouched = path == "/" or any(path == p or path.startswith(p + "/") for p in UNTOUCHED)
            answer = self._answer(environ) if untouched else self._serve(environ, path, sent)
        except HTTPException as refusal:
            answer = refusal.get_response(environ)
        return answer(environ, start_response)

    def _answer(self, environ: Environ) -> Response:
        return Response.from_app(self.app, environ, buffered=True)

    def _serve(self, environ: Environ, path: str, sent: dict[str, Any]) -> Response:
        method = environ["REQUEST_METHOD"]
        key = environ.get("HTTP_IDEMPOTENCY_KEY")
        call, fault = self.plane.arrive(method, path, sent, key)
        try:
            answer = self.plays[fault.kind](fault, environ) if fault else self._answer(environ)
            self.plane.note(call, answer.status_code, self._summary(answer))
            return answer
        finally:
            correlation = {"correlation_id": environ.get("HTTP_X_CORRELATION_ID", "-")}
            outcome = call["status"] or call["fault"]
            logging.getLogger(self.plane.service).info("%s %s %s", method, path, outcome, extra=correlation)

    def _summary(self, answer: Response) -> Any:
        said = answer.get_json(silent=True)  # a HEAD has none
        return self.summary(said) if isinstance(said, dict) else None

    def _refuse(self, fault: Fault, environ: Environ) -> Response:
        socket_faults.refuse(fault.ms)
        socket_faults.reset(environ)

    def _hang(self, fault: Fault, environ: Environ) -> Response:
        if not fault.effect:
            self.plane.wait(fault.ms)
            socket_faults.reset(environ)
        environ[HOLD] = lambda: self.plane.wait(fault.ms)
        return self._answer(environ)

    def _late(self, fault: Fault, environ: Environ) -> Response:
        answer = self._answer(environ)
        self.plane.wait(fault.ms)
        return answer

    def _drop(self, fault: Fault, environ: Environ) -> Response:
        self._answer(environ)
        socket_faults.reset(environ)

    def _truncate(self, fault: Fault, environ: Environ) -> Response:
        answer = self._answer(environ)
        socket_faults.truncate(environ, answer.status, list(answer.headers.items()), answer.get_data())

    def _status(self, fault: Fault, environ: Environ) -> Response:
        body = self.excuse(fault.status) if fault.body is None else fault.body
        if fault.effect:
            environ[OVERRIDE] = (fault.status, body)
            self._answer(environ)
        if isinstance(body, str):
            return Response(body, fault.status, headers=fault.headers)
        return Response(json.dumps(body), fault.status, headers=fault.headers, content_type="application/json")


def _read(environ: Environ) -> dict[str, Any]:
    """The call's query and body as one mapping; the body is left in place for the application."""
    request = Request(environ)
    request.max_content_length = LARGEST_BODY
    body = request.get_data()
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
    sent: dict[str, Any] = request.args.to_dict()
    if request.is_json:
        parsed = request.get_json(silent=True)
        return sent | parsed if isinstance(parsed, dict) else sent
    if request.mimetype == "application/x-www-form-urlencoded":
        return sent | dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    return sent
