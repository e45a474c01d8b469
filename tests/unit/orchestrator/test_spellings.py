"""Two spellings of one value are equal: bodies under one Idempotency-Key, QR payloads, codes and halls."""

from __future__ import annotations

import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from flask import Flask, g

from services.chassis import json_codec, web
from services.chassis.db import Database
from services.chassis.errors import Refused
from services.orchestrator.api import account, purchase, transfer, verification
from services.orchestrator.api.context import ApiContext
from services.orchestrator.api.idempotency import IdempotencyKeys
from services.orchestrator.saga.journal import Journal, Status
from services.orchestrator.tickets.otp import read_otp_code

pytestmark = pytest.mark.unit

SEAT, BUYER, CALLER = (str(uuid4()) for _ in range(3))
RESERVE, TOP_UP, INITIATE, VERIFY = "/api/reserve", "/api/credits/topup", "/api/transfer/initiate", "/api/verify"
PARTIES = {"seat_id": SEAT, "seller_user_id": CALLER, "buyer_user_id": BUYER}


class Routes:
    """The keyed routes on the real store of keys. Their work counts its runs, and ends its saga if it has one."""

    def __init__(self, db: Database) -> None:
        self.runs = 0
        self._journal = Journal(db, deadline_seconds=60, park_seconds=120)
        runner = SimpleNamespace(run=self._run_saga)
        scanner = SimpleNamespace(scan=lambda _request: self._run())
        coalescer = SimpleNamespace(join=lambda _seat, _user, _hold, work: work())
        users = SimpleNamespace(top_up=lambda *_: self._run())
        context = ApiContext(
            participants=cast(Any, SimpleNamespace(users=users)),
            runner=cast(Any, runner),
            otp=cast(Any, None),
            scanner=cast(Any, scanner),
            keys=IdempotencyKeys(db, uuid4()),
            coalescer=cast(Any, coalescer),
            settings=cast(Any, SimpleNamespace(hold_ttl_seconds=300, resale_max_multiple=0)),
        )
        self._app = Flask("routes")
        for routes in (purchase, transfer, verification, account):
            self._app.register_blueprint(routes.blueprint(context))
        self._app.before_request(lambda: setattr(g, "identity", SimpleNamespace(user_id=web.as_id(CALLER))))
        self._app.register_error_handler(Refused, lambda refusal: (refusal.code, refusal.meaning.http))

    def _run(self) -> dict[str, Any]:
        self.runs += 1
        return {"run": self.runs}

    def _run_saga(self, saga: Any, subject: UUID, *_: Any, **__: Any) -> dict[str, Any]:
        result = dict.fromkeys(saga.result_fields, self._run()["run"])
        entry, _is_own = self._journal.begin(saga.flow, subject, {}, caller=None, dispute_number=0, one_attempt=True)
        assert self._journal.end(entry, Status.DONE, result)
        return result

    def post(self, path: str, raw: str, key: str) -> int:
        """Send the bytes of a body under a key and return the status."""
        answer = self._app.test_client().post(
            path, data=raw.encode(), content_type="application/json", headers={"Idempotency-Key": key}
        )
        return answer.status_code


@pytest.mark.parametrize(
    ("path", "first", "again"),
    [
        (RESERVE, json.dumps({"seat_id": SEAT}), json.dumps({"seat_id": SEAT}, indent=2)),
        (RESERVE, json.dumps({"seat_id": SEAT}), json.dumps({"seat_id": SEAT.upper()})),
        (RESERVE, json.dumps({"seat_id": SEAT}), json.dumps({"seat_id": SEAT}).replace("seat", "\\u0073eat")),
        (RESERVE, json.dumps({"seat_id": SEAT}), json.dumps({"user_id": CALLER, "seat_id": SEAT})),
        (RESERVE, json.dumps({"seat_id": SEAT}), json.dumps({"seat_id": SEAT, "user_id": None})),
        (TOP_UP, '{"amount": 1}', '{"amount":1.00}'),
        (TOP_UP, '{"amount": 1.0}', '{"amount":10e-1}'),
        (INITIATE, json.dumps({**PARTIES, "credits_amount": 5}), json.dumps({"credits_amount": 5.0, **PARTIES})),
        (VERIFY, '{"qr_payload": "QUJD", "hall_id": "HALL-A"}', '{"hall_id":" HALL-A ","qr_payload":"QUJD\\r\\n"}'),
        (VERIFY, '{"qr_payload": "QUJD", "hall_id": "HALL-A"}', '{"qr_payload": "QUJD", "hall_id": "hall-a"}'),
    ],
    ids=[
        "spacing",
        "upper-case id",
        "escape",
        "own id",
        "null",
        "1.00",
        "exponent",
        "key order",
        "scanner newline",
        "case of the hall",
    ],
)
def test_another_spelling_of_the_body_gets_the_first_answer(db: Database, path: str, first: str, again: str) -> None:
    routes, key = Routes(db), str(uuid4())
    assert routes.post(path, first, key) < 300
    assert routes.post(path, again, key) < 300
    assert routes.runs == 1


@pytest.mark.parametrize(
    ("path", "first", "other"),
    [
        (RESERVE, json.dumps({"seat_id": SEAT}), json.dumps({"seat_id": BUYER})),
        (TOP_UP, '{"amount": 1}', '{"amount": 1.01}'),
        (INITIATE, json.dumps({**PARTIES, "credits_amount": 5}), json.dumps({**PARTIES, "credits_amount": 6})),
        (VERIFY, '{"qr_payload": "QUJD", "hall_id": "HALL-A"}', '{"qr_payload": "QUJD", "hall_id": "HALL-B"}'),
        (VERIFY, '{"qr_payload": "QUJD", "hall_id": "HALL-A"}', '{"qr_payload": "qujd", "hall_id": "HALL-A"}'),
    ],
)
def test_another_meaning_under_the_key_is_refused(db: Database, path: str, first: str, other: str) -> None:
    routes, key = Routes(db), str(uuid4())
    assert routes.post(path, first, key) < 300
    assert routes.post(path, other, key) == 422


@pytest.mark.parametrize(
    ("path", "body"),
    [(RESERVE, {"seat_id": SEAT}), (INITIATE, {**PARTIES, "credits_amount": 5})],
    ids=["reserve", "initiate"],
)
def test_key_of_a_saga_stores_no_answer(db: Database, path: str, body: dict[str, Any]) -> None:
    """The journal has it."""
    key = str(uuid4())
    assert Routes(db).post(path, json.dumps(body), key) < 300
    assert db.statement("SELECT answer FROM idempotency_keys WHERE key = %(key)s", key=key) == {"answer": None}


@pytest.mark.parametrize("text", ["123456", " 123456\n", "123 456", "123-456"])
def test_blanks_and_hyphens_in_a_code_do_not_count(text: str) -> None:
    raw = json.dumps({"otp_code": text, "seller_otp": text, "transfer_id": SEAT}).encode()
    assert read_otp_code(text) == "123456"
    assert web.decode(raw, purchase.VerifyOtpBody).otp_code == "123456"
    confirm = web.decode(raw, transfer.ConfirmBody)
    assert (confirm.seller_otp, confirm.buyer_otp) == ("123456", None)


@pytest.mark.parametrize("text", ["", "   ", "123", "12345678901", "12a456", "１２３４５６"])
def test_text_that_is_no_code_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="VALIDATION_ERROR"):
        web.decode(json.dumps({"otp_code": text}).encode(), purchase.VerifyOtpBody)


@pytest.mark.parametrize("spoil", ["{}\n", "\r\n{}", " {}\t"], ids=repr)
def test_blanks_around_a_qr_payload_do_not_count(spoil: str) -> None:
    body = {"qr_payload": spoil.format("QUJD"), "hall_id": "HALL-A"}
    assert web.decode(json.dumps(body).encode(), verification.VerifyBody).qr_payload == "QUJD"


def test_qr_payload_broken_into_lines_is_one_payload() -> None:
    body = {"qr_payload": "QU\nJD", "hall_id": "HALL-A"}
    assert web.decode(json.dumps(body).encode(), verification.VerifyBody).qr_payload == "QUJD"


def test_amount_keeps_its_value_in_the_canonical_form() -> None:
    assert json_codec.encode_canonically({"b": Decimal("1.00"), "a": 1}) == b'{"a":1,"b":1.00}'
