"""The address of a client, as the gateway saw it."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address

from flask import request

HEADER = "X-Real-IP"  # the gateway overwrites it, so a client cannot choose it


def client_address() -> str:
    """The network of the request's client: an IPv4 address, or the /64 of an IPv6 address, which one client has."""
    return _normalize(request.headers.get(HEADER) or request.remote_addr or "")


@lru_cache(maxsize=4096)
def _normalize(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or IPv6Network((address.packed, 64), strict=False))
    return str(address)
