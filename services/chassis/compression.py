"""Compresses large response bodies once. The clients of one body share its compressed bytes."""

from __future__ import annotations

import gzip
from collections import OrderedDict
from threading import Lock

from flask import Response, request

MIN_BYTES = 1000
LEVEL = 6
KEPT_BODIES, KEPT_BYTES = 32, 64 * 2**20  # in gzip. A seat map of 50,000 seats has about 6 MB without it

_lock = Lock()
_kept: OrderedDict[str | bytes, bytes] = OrderedDict()  # bodies in gzip by their ETag or body, the latest one last


def respond(body: bytes, content_type: str, etag: str = "") -> Response:
    """A response with the body, in gzip if it is large and the client accepts that.

    With the `etag` of a large body, the compressed bytes are kept without the body itself.
    """
    is_packed = len(body) >= MIN_BYTES and bool(request.accept_encodings["gzip"])
    response = Response(_pack_once(etag or body, body) if is_packed else body, content_type=content_type)
    if is_packed:
        response.content_encoding = "gzip"
    response.vary.add("Accept-Encoding")
    return response


def _pack_once(name: str | bytes, body: bytes) -> bytes:
    """The body in gzip. Concurrent callers wait for the first, because each would need the same CPU time."""
    with _lock:
        packed = _kept.pop(name, None) or gzip.compress(body, LEVEL, mtime=0)
        _kept[name] = packed
        while len(_kept) > KEPT_BODIES or sum(map(len, _kept.values())) > KEPT_BYTES:
            _kept.popitem(last=False)
        return packed
