"""Stubs of SMU, Stripe and our services. A response that the spec does not allow fails the test.

with Stubs() as stubs:                                         # for calls through `requests`
    stubs.respond("POST", f"{SMU_URL}/SendSMS", json={"status": "queued"})
    stubs.respond_wrongly("POST", f"{SMU_URL}/SendOTP", status=500)   # this response must break the spec

return check_response("inventory", method, url, 200, body)     # for a stub of `Transport`, or a test's own server
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

SERVERS = {"smu.test": "smu", "stripe.test": "stripe"}  # host: name of its spec
HEADERS = {"stripe": {"Request-Id": "req_1"}}  # the headers of a response that sets none


class StubDrift(BaseException):
    """A stub does not match its spec. It is no Exception, so that a service under test cannot turn it into a 500."""


def check_response(
    server: str, method: str, url: str, status: int, body: bytes, *, wrong: bool = False
) -> tuple[int, bytes]:
    """Return status and body if the spec of `server` allows them, otherwise raise StubDrift.

    `wrong` inverts the check, so the spec must forbid the response.
    """
    _check(Exchange(server, method, urlsplit(url).path, status, {}, body), wrong=wrong, body_only=True)
    return status, body


class Stubs(responses.RequestsMock):
    """SMU and Stripe behind `requests`. The end of the block checks every response that was sent."""

    def __init__(self) -> None:
        super().__init__(assert_all_requests_are_fired=False)
        self._added: list[tuple[responses.BaseResponse, bool]] = []

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def respond(self, method: str, url: str, *, instead: bool = False, **response: Any) -> None:
        """Queue a response that the spec allows. With `instead`, it replaces the responses queued before."""
        self._add(method, url, response, instead, wrong=False)

    def respond_wrongly(self, method: str, url: str, *, instead: bool = False, **response: Any) -> None:
        """Queue a response that the spec forbids, or a connection error."""
        self._add(method, url, response, instead, wrong=True)

    def _add(self, method: str, url: str, response: dict[str, Any], instead: bool, *, wrong: bool) -> None:
        headers = response.pop("headers", HEADERS.get(_server(url), {}))
        add = self.upsert if instead else self.add
        self._added.append((add(method, url, headers=headers, **response), wrong))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._check_all()
        finally:
            super().__exit__(kind, error, trace)  # deletes the recorded calls

    def _check_all(self) -> None:
        sent = [(call, wrong) for added, wrong in self._added for call in added.calls]
        if len(sent) != len(self.calls):
            raise StubDrift("a call was not stubbed with respond() or respond_wrongly(), so no spec checks it")
        for call, wrong in sent:
            response: Any = call.response  # or the error that was raised instead
            if isinstance(response, requests.Response):
                _check(_exchange(call.request, response), wrong=wrong)
            elif not wrong:
                raise StubDrift(f"{call.request.url}: the spec has no connection errors: use respond_wrongly()")


def example(server: str, method: str, path: str, status: int) -> Any:
    """The example body of a response in the spec, from which a stub starts."""
    document = bundle(server)
    response = resolve(document, document["paths"][path][method.lower()]["responses"][str(status)])
    return response["content"]["application/json"]["example"]


def _exchange(request: requests.PreparedRequest, response: requests.Response) -> Exchange:
    url, method = str(request.url), str(request.method)
    return Exchange(_server(url), method, urlsplit(url).path, response.status_code, response.headers, response.content)


def _server(url: str) -> str:
    return SERVERS[str(urlsplit(url).hostname)]


@cache
def _contract(server: str) -> Contract:
    return Contract(bundle(server))


def _check(exchange: Exchange, *, wrong: bool, body_only: bool = False) -> None:
    contract = _contract(exchange.server)
    found = list(contract.violations(exchange, body_only=body_only))
    if contract.identify(exchange) is None:
        found.append(f"{exchange}: the spec has no such operation")
    if wrong and not found:
        raise StubDrift(f"{exchange}: the spec allows this response: use respond(), or wrong=False")
    if found and not wrong:
        raise StubDrift("\n".join(found))
