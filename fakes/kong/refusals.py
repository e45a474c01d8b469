"""Answers of Kong itself: those of `kong.response.error` and its error pages go by template, those of `exit` do not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

UPSTREAM_MESSAGES = {
    502: "An invalid response was received from the upstream server",
    503: "name resolution failed",
    504: "The upstream server is timing out",
}
MIME_TYPES = {
    "json": "application/json; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "xml": "application/xml; charset=utf-8",
    "plain": "text/plain; charset=utf-8",
}
FORMATS = {
    "application/json": "json",
    "application/*": "json",
    "*/*": "json",
    "text/html": "html",
    "application/xml": "xml",
    "text/plain": "plain",
    "text/*": "plain",
}
BUILT_IN = {
    "json": '{\n  "message":"%s",\n  "request_id":"%s"\n}',
    "html": "<!doctype html>\n<title>Error</title>\n<h1>Error</h1>\n<p>%s.</p>\n<p>request_id: %s</p>\n",
    "xml": '<?xml version="1.0" encoding="UTF-8"?>\n<error><message>%s</message><requestid>%s</requestid></error>\n',
    "plain": "%s\nrequest_id: %s\n",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that goes no further. `body` is ready bytes (`exit`) or None, where the template is to be used."""

    status: int
    message: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str = MIME_TYPES["json"]


@dataclass(frozen=True)
class Templates:
    """Kong's `error_template_*`: at most two `%s`, the message and the request id, in this order."""

    by_format: Mapping[str, str] = field(default_factory=lambda: dict(BUILT_IN))

    @classmethod
    def read(cls, json_template: Path | None) -> Templates:
        """Templates with the JSON one replaced. Raises ValueError if Kong would fail to fill it in."""
        if json_template is None:
            return cls()
        text = json_template.read_text()
        if text.count("%") != text.count("%s") or text.count("%s") > 2:
            raise ValueError(f"{json_template}: at most two %s and no other %")
        return cls({**BUILT_IN, "json": text})

    def fill(self, accept: str, message: str, request_id: str) -> tuple[str, bytes]:
        """The content type and body for a client that accepts `accept`; JSON unless it prefers another."""
        chosen = preferred(accept)
        template = self.by_format[chosen]
        values = (message, request_id)[: template.count("%s")]
        return MIME_TYPES[chosen], (template % values).encode()


def preferred(accept: str) -> str:
    """The format of the media type with the highest q that Kong has a template for."""
    best, found = 0.0, "json"
    for entry in accept.lower().split(","):
        media, _, parameters = entry.strip().partition(";")
        quality = re.search(r"q=([01](?:\.\d{0,3})?)", parameters)
        q = float(quality[1]) if quality else 1.0
        if q > best:
            best, found = q, FORMATS.get(media.strip(), "json")
    return found
