"""`/docs`: the public API as a Swagger UI page. A Python package contains Swagger UI, so no other host is called.

The page reads `specs/gateway.yaml` and the files that it refers to.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response

from services.chassis import access, compression
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode

SPECS = Path(__file__).parents[3] / "specs"
YAML = ("gateway.yaml", "components.yaml", "errors.yaml")
ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript", "favicon-32x32.png": "image/png"}
HEADERS = {
    "Cache-Control": "public, max-age=300",
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'",
}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TicketRemaster API</title>
<link rel="icon" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = """SwaggerUIBundle({
  url: '/docs/gateway.yaml', dom_id: '#swagger-ui', deepLinking: true, persistAuthorization: true, validatorUrl: null,
});
"""


def blueprint() -> Blueprint:
    """Create the public routes of the page and its files."""
    routes = Blueprint("docs", __name__)

    @routes.get("/docs")
    @access.public
    def docs() -> Response:
        return Response(PAGE, content_type="text/html; charset=utf-8", headers=HEADERS)

    @routes.get("/docs/<name>")
    @access.public
    def file(name: str) -> Response:
        content, mimetype = _read_file(name)
        response = compression.respond(content, mimetype)
        response.headers.update(HEADERS)
        return response

    return routes


@lru_cache
def _read_file(name: str) -> tuple[bytes, str]:
    if name == "start.js":
        return START.encode(), "text/javascript"
    if name in YAML:
        return (SPECS / name).read_bytes(), "application/yaml"
    if name in ASSETS:
        return files("flask_swagger_ui").joinpath("dist", name).read_bytes(), ASSETS[name]
    raise Refused(ErrorCode.NOT_FOUND)
