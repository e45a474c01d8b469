"""Request bodies: the decoded value is checked, not its encoding."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import services
from services.chassis import web
from services.chassis.errors import Refused

pytestmark = pytest.mark.unit

ESCAPE = rb"\u0000"


class Inner(msgspec.Struct):
    text: str


class Body(msgspec.Struct):
    text: str = ""
    lines: list[str] = []
    inner: Inner | None = None
    more: dict[str, Any] = {}


@pytest.mark.parametrize(
    "raw",
    [
        b'{"text":"%s"}',
        b'{"text":"a%sb"}',
        b'{"text":"\\\\%s"}',  # an escaped backslash, and then the escape of NUL
        b'{"lines":["a","%s"]}',
        b'{"inner":{"text":"%s"}}',
        b'{"more":{"a":[{"b":"%s"}]}}',
        b'{"more":{"%s":1}}',
    ],
)
def test_nul_in_any_text_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused, match="NUL"):
        web.decode(raw % ESCAPE, Body)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (rb'{"text":"C:\\u0000 path"}', r"C:\u0000 path"),
        (rb'{"text":"\\\\u0000"}', r"\\u0000"),
        (rb'{"text":"u0000"}', "u0000"),
        (rb'{"text":"\u00e9\\u0000"}', "é\\u0000"),
        (rb'{"text":"\ud83c\udf9f"}', "🎟"),
        (rb'{"text":"a","unknown":"\u0000"}', "a"),  # an unknown field is not stored
    ],
)
def test_text_that_only_looks_like_nul_is_accepted(raw: bytes, text: str) -> None:
    assert web.decode(raw, Body).text == text


@pytest.mark.parametrize(
    "raw",
    [rb'{"text":"\ud800"}', rb'{"text":"\udc00 x"}', rb'{"text":"\ud800\u0041"}', b'{"text":"\xed\xa0\x80"}',
     b'{"text":"\x00"}', b'{"text":"\xff"}', '{"text":"é"}'.encode("utf-16"), '{"text":"é"}'.encode("latin-1")],
)  # fmt: skip
def test_text_that_is_not_unicode_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        web.decode(raw, Body)
    assert refusal.value.code == "VALIDATION_ERROR"


def test_no_message_can_show_a_regular_expression() -> None:
    """msgspec shows the `pattern` of a field in its error message, so only Stripe's events may have one."""
    root = Path(services.__file__).parent
    found = {path.name for path in root.rglob("*.py") if re.search(r"Meta\([^)]*pattern=", path.read_text())}
    assert found <= {"stripe_events.py"}, "messages about Stripe's events reach only the log"
