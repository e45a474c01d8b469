"""Kong's own responses. `kong.response.error` and the error pages use a template, `kong.response.exit` does not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

UPSTREAM_MESSAGES = {
    502: "An invalid response was received from the upstream server",
    503: "failure to get a peer from the ring-balancer",
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
    """A refusal of a request. `body` is the bytes of `exit`, or None for a response from the template."""

    status: int
    message: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str = MIME_TYPES["json"]


@dataclass(frozen=True)
class Templates:
    """Kong's `error_template_*`. Each has at most two `%s`, for the message and then the request id."""

    by_format: Mapping[str, str] = field(default_factory=lambda: dict(BUILT_IN))

    @classmethod
    def read(cls, json_template: Path | None) -> Templates:
        """Return templates with this JSON one. Raises ValueError if Kong could not fill it."""
        if json_template is None:
            return cls()
        text = json_template.read_text()
        if text.count("%") != text.count("%s") or text.count("%s") > 2:
            raise ValueError(f"{json_template}: at most two %s and no other %")
        return cls({**BUILT_IN, "json": text})

    def fill(self, accept: str, message: str, request_id: str) -> tuple[str, bytes]:
        """Return the content type and body for an Accept header. JSON is the default."""
        chosen = choose_format(accept)
        template = self.by_format[chosen]
        values = (message, request_id)[: template.count("%s")]
        return MIME_TYPES[chosen], (template % values).encode()


def choose_format(accept: str) -> str:
    """Choose the format with the highest q that Kong has a template for."""
    best, found = 0.0, "json"
    for entry in accept.lower().split(","):
        media, _, parameters = entry.strip().partition(";")
        quality = re.search(r"q=([01](?:\.\d{0,3})?)", parameters)
        q = float(quality[1]) if quality else 1.0
        if q > best:
            best, found = q, FORMATS.get(media.strip(), "json")
    return found
