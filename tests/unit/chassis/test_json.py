"""Request bodies: the decoded value is checked, not its encoding. Threads may decode the same shape first."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import services
from harness.runtime.compose import ROOT
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


RACE = """
import sys, threading
from typing import Annotated
import msgspec
from services.chassis import json_codec

FIELDS = [(f"f{n}", Annotated[int, msgspec.Meta(ge=0)]) for n in range(12)]
RAW = msgspec.json.encode({name: 1 for name, _ in FIELDS})
sys.setswitchinterval(1e-6)
for number in range(1500):
    shape = msgspec.defstruct(f"Shape{number}", FIELDS)
    together = threading.Barrier(8)
    uses = (lambda: json_codec.decode_as(RAW, shape), lambda: json_codec.convert(json_codec.decode(RAW), shape))
    threads = [threading.Thread(target=lambda use=uses[n % 2]: (together.wait(), use())) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_first_decodes_of_a_shape_by_many_threads_do_not_crash() -> None:
    ended = subprocess.run([sys.executable, "-c", RACE], cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
