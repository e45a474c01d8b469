"""The plugin pre-function. This fake runs no Lua. It does in Python what one program does, and refuses another.

The program makes the correlation id of a request one UUID. It normalizes or removes the id of the client. In a response
of Kong itself, it replaces Kong's request id by the id of the response. It copies the user in the token to a header.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from uuid import UUID

from fakes.kong.exchange import Exchange, Headers, drop, get, put
from fakes.kong.refusals import Refusal

HEADER = "X-Correlation-ID"
SUBJECT_HEADER = "X-Token-Subject"
TOKEN = re.compile(r"[Bb]earer\s+[^.\s]+\.([^.\s]+)\.")
SUBJECT = re.compile(rb'"sub"\s*:\s*"([A-Za-z0-9-]+)"')
ACCESS = """
local hex = (kong.request.get_header("X-Correlation-ID") or ""):lower():gsub("%-", "")
if #hex == 32 and not hex:find("%X") then
  local id = hex:sub(1, 8) .. "-" .. hex:sub(9, 12) .. "-" .. hex:sub(13, 16)
  id = id .. "-" .. hex:sub(17, 20) .. "-" .. hex:sub(21)
  kong.service.request.set_header("X-Correlation-ID", id)
else
  kong.service.request.clear_header("X-Correlation-ID")
end
local token = (kong.request.get_header("Authorization") or ""):match("[Bb]earer%s+[^%.%s]+%.([^%.%s]+)%.") or ""
local padded = token:gsub("%-", "+"):gsub("_", "/") .. ("==="):sub(1, -#token % 4)
local subject = (ngx.decode_base64(padded) or ""):match('"sub"%s*:%s*"([%w%-]+)"')
if subject then
  kong.service.request.set_header("X-Token-Subject", subject)
else
  kong.service.request.clear_header("X-Token-Subject")
end
"""
HEADER_FILTER = """
if kong.response.get_source() ~= "service" then
  kong.response.set_header("Cache-Control", "no-store")
  kong.response.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
  kong.response.set_header("X-Content-Type-Options", "nosniff")
  if kong.response.get_status() >= 400 then
    kong.response.clear_header("Content-Length")
  end
end
"""
PROTECTION = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "; ".join(("default-src 'none'", "frame-ancestors 'none'")),
    "X-Content-Type-Options": "nosniff",
}
BODY_FILTER = """
if kong.response.get_source() ~= "service" and kong.response.get_status() >= 400 then
  local body, id = kong.response.get_raw_body(), kong.response.get_header("X-Correlation-ID")
  if body and id then
    kong.response.set_raw_body((body:gsub(kong.request.get_id(), id)))
  end
end
"""
PROGRAM = {"access": ACCESS, "header_filter": HEADER_FILTER, "body_filter": BODY_FILTER}


def is_known(phase: str, chunks: list[str]) -> bool:
    """Whether this fake does in `phase` what the Lua `chunks` do."""
    return [chunk.split() for chunk in chunks] == [PROGRAM[phase].split()]


class PreFunctionPlugin:
    """The known program. It runs before all other plugins."""

    def access(self, exchange: Exchange) -> Refusal | None:
        """Normalize the client's correlation id, or remove it. Copy the user in the token to a header."""
        exchange.replace_header(HEADER, _normalize(exchange.header(HEADER)))
        exchange.replace_header(SUBJECT_HEADER, _read_subject(exchange.header("Authorization")))
        return None

    def header_filter(self, exchange: Exchange, headers: Headers) -> None:
        """Protect an answer of Kong itself, and remove the length of a body that `body_filter` changes."""
        if exchange.refused_status:
            for name, value in PROTECTION.items():
                put(headers, name, value)
        if exchange.refused_status >= 400:
            drop(headers, "Content-Length")

    def body_filter(self, exchange: Exchange, headers: Headers, body: bytes) -> bytes:
        """Replace Kong's request id by the correlation id of the response."""
        correlation_id = get(headers, HEADER)
        if exchange.refused_status < 400 or not correlation_id:
            return body
        return body.replace(exchange.request_id.encode(), correlation_id.encode())


def _normalize(sent: str) -> str | None:
    digits = sent.lower().replace("-", "")
    is_hex = len(digits) == 32 and all(digit in "0123456789abcdef" for digit in digits)
    return str(UUID(digits)) if is_hex else None


def _read_subject(authorization: str) -> str | None:
    """The `sub` of a token that is not verified yet."""
    token = TOKEN.search(authorization)
    if token is None:
        return None
    try:
        claims = urlsafe_b64decode(token[1] + "=" * (-len(token[1]) % 4))
    except ValueError:
        return None
    subject = SUBJECT.search(claims)
    return subject[1].decode() if subject else None
