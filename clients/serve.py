"""`python -m clients.serve`: serve the web client with its settings, gzip, ETags and a strict Content-Security-Policy.

PORT (3000) and BIND set the address. PUBLIC_API_URL, PUBLIC_STRIPE_JS_URL and DEMO_INBOX_URL are addresses that a
browser uses. PUBLIC_STRIPE_KEY goes to Stripe.js. DEMO_INBOX_URL is set only if the codes stay in the inbox of the
fake SMU. The page then links to the inbox and offers the accounts of the seed data.
"""

from __future__ import annotations

import gzip
import json
import mimetypes
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, request
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from werkzeug.exceptions import NotFound

SERVICE = "web-client"
HOME = Path(__file__).parent
PAGES = HOME / "web"
LIBRARIES = {  # address below /lib/: file in node_modules
    "vue.js": "vue/dist/vue.runtime.esm-browser.prod.js",
    "htm.js": "htm/dist/htm.module.js",
    "qr/index.js": "qr/index.js",
    "qr/decode.js": "qr/decode.js",
}
STRIPE = "https://js.stripe.com"
STRIPE_API, STRIPE_FRAMES = "https://api.stripe.com", "https://hooks.stripe.com https://*.js.stripe.com"
GZIP_MIN_BYTES = 1000
THREADS = 8


@dataclass(frozen=True)
class Settings:
    """The settings of the page. All addresses are those that a browser uses."""

    api: str
    stripe_js: str
    stripe_key: str
    demo_inbox: str

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Settings:
        """Read the environment. Exits with one line if an address is missing or has no http scheme."""
        found = cls(
            env.get("PUBLIC_API_URL", "").rstrip("/"),
            env.get("PUBLIC_STRIPE_JS_URL", ""),
            env.get("PUBLIC_STRIPE_KEY", ""),
            env.get("DEMO_INBOX_URL", ""),
        )
        for name, url in (("PUBLIC_API_URL", found.api), ("PUBLIC_STRIPE_JS_URL", found.stripe_js)):
            if not url.startswith(("http://", "https://")):
                sys.exit(f"configuration: {name}={url!r} is not an address such as http://localhost:8000")
        return found

    def to_script(self) -> bytes:
        """The module /config.js."""
        shown = {"api": self.api, "stripeJs": self.stripe_js, "stripeKey": self.stripe_key, "inbox": self.demo_inbox}
        return f"export default {json.dumps(shown)}\n".encode()

    def to_policy(self) -> str:
        """The Content-Security-Policy. It allows the page itself, the gateway and the configured Stripe.js."""
        stripe = origin_of(self.stripe_js)
        api, frames = (f" {STRIPE_API}", f" {STRIPE_FRAMES}") if stripe == STRIPE else ("", "")
        allowed = {
            **dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'"),
            **dict.fromkeys(("style-src", "img-src"), "'self'"),
            "script-src": f"'self' {stripe}",
            "connect-src": f"'self' {origin_of(self.api)}{api}",
            "frame-src": f"{stripe}{frames}",
        }
        return "; ".join(f"{name} {sources}" for name, sources in allowed.items())


@dataclass(frozen=True)
class File:
    """A file as it is sent, with its compressed form if that is smaller."""

    body: bytes
    kind: str

    @property
    def compressed(self) -> bytes | None:
        """The body in gzip, or None for a small file."""
        return gzip.compress(self.body, 9, mtime=0) if len(self.body) > GZIP_MIN_BYTES else None


def origin_of(url: str) -> str:
    """Return the scheme, host and port of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def load_files(settings: Settings) -> dict[str, File]:
    """Return every file by its address. Exits with one line if the libraries are not installed."""
    return {name: File(body, _find_kind(name)) for name, body in _read_files(settings)}


def _read_files(settings: Settings) -> Iterator[tuple[str, bytes]]:
    yield "config.js", settings.to_script()
    for path in PAGES.rglob("*.*"):
        yield path.relative_to(PAGES).as_posix(), path.read_bytes()
    for name, file in LIBRARIES.items():
        try:
            yield f"lib/{name}", (HOME / "node_modules" / file).read_bytes()
        except FileNotFoundError:
            sys.exit(f"clients/node_modules/{file} is missing: run `npm ci` in clients/, or start with `make up`")


def _find_kind(name: str) -> str:
    kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def create_app(settings: Settings | None = None) -> Flask:
    """Build the WSGI app. It reads all files once."""
    settings = settings or Settings.read(os.environ)
    files = load_files(settings)
    packed = {name: file.compressed for name, file in files.items()}
    app = Flask(__name__, static_folder=None)

    @app.get("/health")
    @app.get("/health/live")
    def _health() -> Response:
        return jsonify(status="ok", service=SERVICE)

    @app.get("/", defaults={"name": "index.html"})
    @app.get("/<path:name>")
    def _file(name: str) -> Response:
        if name not in files:
            raise NotFound
        small = packed[name] if request.accept_encodings["gzip"] else None
        response = Response(small or files[name].body, content_type=files[name].kind)
        if small:
            response.content_encoding = "gzip"
        response.vary.add("Accept-Encoding")
        response.add_etag()
        response.headers["Cache-Control"] = "no-cache"  # a browser checks for a change, which costs a 304
        response.make_conditional(request)
        return response

    headers = {
        "Content-Security-Policy": settings.to_policy(),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }

    @app.after_request
    def _protect(response: Response) -> Response:
        response.headers.update(headers)
        return response

    return app


def main() -> None:
    """Serve until SIGTERM. Exits with one line if the port is taken, because Granian would share it."""
    Settings.read(os.environ)
    bind, port = os.environ.get("BIND", "0.0.0.0"), int(os.environ.get("PORT", "3000"))  # noqa: S104 for containers
    try:
        socket.create_server((bind, port)).close()
    except OSError as error:
        sys.exit(f"{SERVICE} cannot listen on {bind}:{port}: {error.strerror}")
    Granian(
        "clients.serve:create_app",
        address=bind,
        port=port,
        interface=Interfaces.WSGI,
        factory=True,
        blocking_threads=THREADS,
        http=HTTPModes.http1,
        log_level=LogLevels.error,
    ).serve()


if __name__ == "__main__":
    main()
