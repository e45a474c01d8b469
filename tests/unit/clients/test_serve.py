"""The process that serves the web client: its headers, its settings and its size."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from clients.serve import HOME, PAGES, Settings, create_app
from harness.runtime import node_packages
from tests.support.node_packages import FOLDER as POSTMAN

pytestmark = pytest.mark.unit

FAKE = Settings("http://localhost:8000", "http://localhost:6002/v3/", "pk_test_x", "http://localhost:6001/")
REAL = Settings("https://api.example.org", "https://js.stripe.com/v3/", "pk_live_x", "")
MAX_LINES, MAX_BYTES = 1500, 150_000
FOREIGN = re.compile(r"https?://(?!www\.w3\.org/)[\w.-]+")


@pytest.fixture(scope="session", autouse=True)
def libraries() -> None:
    """Install the libraries that the process serves."""
    node_packages.install(HOME)


def client(settings: Settings = FAKE) -> FlaskClient:
    return create_app(settings).test_client()


def parse_policy(settings: Settings) -> dict[str, list[str]]:
    policy = client(settings).get("/").headers["Content-Security-Policy"]
    return {name: sources for name, *sources in map(str.split, policy.split(";"))}


def list_addresses() -> list[str]:
    pages = [path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.*")]
    return ["", "config.js", "lib/vue.js", "lib/htm.js", "lib/qr/index.js", "lib/qr/decode.js", *pages]


@pytest.mark.parametrize("settings", [FAKE, REAL], ids=["offline", "stripe"])
def test_policy_allows_no_inline_code_and_no_eval(settings: Settings) -> None:
    policy = parse_policy(settings)
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == ["'none'"]
    assert not [source for sources in policy.values() for source in sources if "unsafe" in source or source == "*"]
    page = (PAGES / "index.html").read_text()
    assert not re.search(r"<style|<script(?! type=\"module\" src=)|\son\w+=|\sstyle=", page)


def test_policy_allows_exactly_the_configured_stripe_and_gateway() -> None:
    offline, real = parse_policy(FAKE), parse_policy(REAL)
    assert offline["script-src"] == ["'self'", "http://localhost:6002"]
    assert offline["frame-src"] == ["http://localhost:6002"]
    assert offline["connect-src"] == ["'self'", "http://localhost:8000"]
    assert real["script-src"] == ["'self'", "https://js.stripe.com"]
    assert real["connect-src"] == ["'self'", "https://api.example.org", "https://api.stripe.com"]
    assert set(real["frame-src"]) == {"https://js.stripe.com", "https://hooks.stripe.com", "https://*.js.stripe.com"}


def test_page_names_no_foreign_host() -> None:
    for path in PAGES.rglob("*.*"):
        assert not FOREIGN.findall(path.read_text()), path


def test_a_file_is_compressed_and_unchanged_files_get_304() -> None:
    first = client().get("/app.js", headers={"Accept-Encoding": "gzip"})
    assert first.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(first.data) == (PAGES / "app.js").read_bytes()
    again = client().get("/app.js", headers={"Accept-Encoding": "gzip", "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    plain = client().get("/app.js")
    assert "Content-Encoding" not in plain.headers
    assert plain.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["/nothing", "/../serve.py", "/package.json", "/node_modules/vue/package.json"])
def test_no_other_file_is_served(path: str) -> None:
    assert client().get(path).status_code == 404


def test_settings_reach_the_page() -> None:
    text = client().get("/config.js").text
    assert json.loads(text.removeprefix("export default ")) == {
        "api": FAKE.api,
        "stripeJs": FAKE.stripe_js,
        "stripeKey": FAKE.stripe_key,
        "inbox": FAKE.demo_inbox,
    }


@pytest.mark.parametrize("missing", ["PUBLIC_API_URL", "PUBLIC_STRIPE_JS_URL"])
def test_a_missing_address_stops_the_start_with_one_line(missing: str) -> None:
    given = {"PUBLIC_API_URL": "http://a", "PUBLIC_STRIPE_JS_URL": "http://b", missing: ""}
    with pytest.raises(SystemExit, match=f"configuration: {missing}"):
        Settings.read(given)


def test_the_whole_page_is_small() -> None:
    """Even a visitor who opens every page, the camera included, stays within the limit."""
    sent = [len(client().get(f"/{path}", headers={"Accept-Encoding": "gzip"}).data) for path in list_addresses()]
    assert sum(sent) <= MAX_BYTES, f"{sum(sent)} bytes"


def test_own_code_is_short() -> None:
    lines = sum(bool(line.strip()) for path in PAGES.rglob("*.*") for line in path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{lines} lines"


@pytest.mark.parametrize("folder", [HOME, POSTMAN], ids=["clients", "postman"])
def test_lock_pins_by_hash_and_names_no_registry(folder: Path) -> None:
    lock = json.loads((folder / "package-lock.json").read_text())
    packages = {name: found for name, found in lock["packages"].items() if name}
    assert packages
    assert all(found["integrity"].startswith("sha512-") for found in packages.values())
    assert not any("resolved" in found for found in packages.values())
