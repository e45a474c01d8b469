"""Large bodies are compressed once for all clients."""

from __future__ import annotations

import gzip

import pytest
from flask import Flask

from services.chassis import compression
from tests.support.concurrency import run_concurrently

pytestmark = pytest.mark.unit

LARGE, SMALL = b"seat" * 1000, b"seat"
GZIP = {"Accept-Encoding": "gzip"}


def get(body: bytes, **headers: str) -> tuple[bytes, str | None]:
    """Return the bytes and the encoding of a response with this body."""
    with Flask(__name__).test_request_context(headers={**headers}):
        response = compression.respond(body, "application/json")
        assert response.headers["Vary"] == "Accept-Encoding"
        return response.data, response.headers.get("Content-Encoding")


def test_large_body_is_compressed_for_a_client_that_accepts_it() -> None:
    packed, encoding = get(LARGE, **GZIP)
    assert (gzip.decompress(packed), encoding) == (LARGE, "gzip")
    assert get(LARGE) == (LARGE, None)
    assert get(SMALL, **GZIP) == (SMALL, None)


def test_kept_bodies_have_a_limit_in_number_and_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(compression.KEPT_BODIES + 5):
        get(b"%4d" % number * 1000, **GZIP)
    assert len(compression._kept) == compression.KEPT_BODIES
    packed = [len(each) for each in compression._kept.values()]
    monkeypatch.setattr(compression, "KEPT_BYTES", sum(packed) // 2)
    assert gzip.decompress(get(LARGE, **GZIP)[0]) == LARGE
    assert 0 < sum(map(len, compression._kept.values())) <= compression.KEPT_BYTES
    assert LARGE in compression._kept, "the latest one is kept"


def test_body_with_an_etag_is_not_kept_itself() -> None:
    with Flask(__name__).test_request_context(headers=GZIP):
        first = compression.respond(LARGE, "application/json", "an etag").data
        assert compression._kept["an etag"] == first
        assert compression.respond(LARGE, "application/json", "an etag").data == first


def test_concurrent_clients_share_one_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    compress, calls = gzip.compress, []

    def count(body: bytes, *options: int, **others: int) -> bytes:
        calls.append(body)
        assert compression._lock.locked(), "another client could compress now"
        return compress(body, *options, **others)

    monkeypatch.setattr(gzip, "compress", count)
    body = b"another body of this test" * 1000
    answers = run_concurrently([lambda: get(bytes(body), **GZIP)] * 8)
    assert len(set(answers)) == 1
    assert len(calls) == 1
