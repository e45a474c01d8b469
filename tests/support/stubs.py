"""Stubs that cannot drift: what one answers in a test is what the spec of whom it stands for allows.

with Stubs() as outside:                                       # `responses`, for what goes through requests
    outside.answers("POST", f"{SMU_URL}/SendSMS", json={"status": "queued"})
    outside.misbehaves("POST", f"{SMU_URL}/SendOTP", status=500)   # on purpose: then it *must* break the spec

return fits("inventory", method, url, 200, body)   # at the transport's seam, or in a server of one's own
"""

from __future__ import annotations

from functools import cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import requests
import responses

from harness.dev.spec_bundle import bundle, resolve
from tests.contract.exchanges import Contract, Exchange

SERVERS = {"smu.test": "smu", "stripe.test": "stripe"}  # whom a host stands for
HEADERS = {"stripe": {"Request-Id": "req_1"}}  # on an answer of that server that says nothing of headers


class Drifted(BaseException):
    """A stub says what its spec does not. No Exception, so that no service under test makes a 500 of it."""


def fits(server: str, method: str, url: str, status: int, body: bytes, *, wrong: bool = False) -> tuple[int, bytes]:
    """Status and body, once the spec of `server` allows them; `wrong`: once it does not. Raises Drifted."""
    _judge(Exchange(server, method, urlsplit(url).path, status, {}, body), wrong=wrong, body_only=True)
    return status, body


class Stubs(responses.RequestsMock):
    """SMU and Stripe behind `requests`. Every answer that was given is judged at the end of the block."""

    def __init__(self) -> None:
        super().__init__(assert_all_requests_are_fired=False)
        self._made: list[tuple[responses.BaseResponse, bool]] = []

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def answers(self, method: str, url: str, *, instead: bool = False, **answer: Any) -> None:
        """This, which its spec allows, after what was said before, or `instead` of it."""
        self._make(method, url, answer, instead, wrong=False)

    def misbehaves(self, method: str, url: str, *, instead: bool = False, **answer: Any) -> None:
        """This, which its spec does not allow, or no answer at all."""
        self._make(method, url, answer, instead, wrong=True)

    def _make(self, method: str, url: str, answer: dict[str, Any], instead: bool, *, wrong: bool) -> None:
        headers = answer.pop("headers", HEADERS.get(_server(url), {}))
        make = self.upsert if instead else self.add
        self._made.append((make(method, url, headers=headers, **answer), wrong))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._look_back()
        finally:
            super().__exit__(kind, error, trace)  # forgets what was asked

    def _look_back(self) -> None:
        given = [(call, wrong) for made, wrong in self._made for call in made.calls]
        if len(given) != len(self.calls):
            raise Drifted("a call bypassed answers() and misbehaves(), so its answer was not checked")
        for call, wrong in given:
            answer: Any = call.response  # or the error that was raised in its place
            if isinstance(answer, requests.Response):
                _judge(_said(call.request, answer), wrong=wrong)
            elif not wrong:
                raise Drifted(f"{call.request.url}: no answer is none that a spec has")


def example(server: str, method: str, path: str, status: int) -> Any:
    """The body that the spec gives as its example: what a stub starts from."""
    document = bundle(server)
    answer = resolve(document, document["paths"][path][method.lower()]["responses"][str(status)])
    return answer["content"]["application/json"]["example"]


def _said(request: requests.PreparedRequest, answer: requests.Response) -> Exchange:
    url, method = str(request.url), str(request.method)
    return Exchange(_server(url), method, urlsplit(url).path, answer.status_code, answer.headers, answer.content)


def _server(url: str) -> str:
    return SERVERS[str(urlsplit(url).hostname)]


@cache
def _contract(server: str) -> Contract:
    return Contract(bundle(server))


def _judge(said: Exchange, *, wrong: bool, body_only: bool = False) -> None:
    contract = _contract(said.server)
    found = list(contract.violations(said, body_only=body_only))
    if contract.identify(said) is None:
        found.append(f"{said}: no such operation")
    if wrong and not found:
        raise Drifted(f"{said}: is as its spec has it, and was to misbehave")
    if found and not wrong:
        raise Drifted("\n".join(found))
