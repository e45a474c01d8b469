"""Everybody is told, in the end: by e-mail of bookings and refunds, by SMS of transfers (issue 5)."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import urllib3

from tests.e2e.test_transfers import pair
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]


def letters(system: TestSystem, to: Person) -> list[dict[str, Any]]:
    """The e-mails that went to somebody, newest first."""
    url = f"{system.smu.url}/inbox?email={to.email}"
    answer = urllib3.request("GET", url, headers={"Accept": "application/json"})
    return [m for m in json.loads(answer.data)["messages"] if m["kind"] == "email"]


def told(system: TestSystem, to: Person, *words: str) -> list[dict[str, Any]]:
    """The SMS to somebody that have all these words."""
    messages = [m for m in system.inbox.messages(to.phone) if m["kind"] == "sms"]
    return [m for m in messages if all(word in m["text"] for word in words)]


def test_a_booking_and_its_refund_are_told_by_e_mail_once(system: TestSystem) -> None:
    buyer = system.person()
    _, order_id = system.buy_seat(buyer)
    (booked,) = system.wait_until("the booking's letter", lambda: letters(system, buyer))
    assert booked["subject"] == "Your TicketRemaster booking"
    assert order_id in booked["html"]
    system.staff().refund(order_id).must(200)
    refunded, _ = system.wait_until(
        "the refund's letter", lambda: letters(system, buyer)[:2] if len(letters(system, buyer)) > 1 else []
    )
    assert refunded["subject"] == "Your TicketRemaster refund"
    buyer.pay(order_id)
    assert len(letters(system, buyer)) == 2


def test_both_parties_are_told_of_each_turn_of_a_transfer(system: TestSystem) -> None:
    seller, buyer, seat = pair(system)
    transfer_id = system.dispute_transfer(seller, buyer, seat, 90)
    system.staff().transfer("reverse", transfer_id).must(200)
    for party in (seller, buyer):
        for word in ("was started", "has changed hands", "is disputed", "was reversed"):
            system.wait_until(f"told that it {word}", partial(told, system, party, word, transfer_id))
        assert len(told(system, party, transfer_id)) == 4, "each once"


def test_what_smu_could_not_take_is_delivered_when_it_is_back(system: TestSystem) -> None:
    buyer, (seller, other, seat) = system.person(), pair(system)
    transfer_id = system.start_transfer(seller, other, seat, 90)
    with system.smu.fault("status", "/Send[SE]*", status=500):
        _, order_id = system.buy_seat(buyer)
        codes = {"seller_otp": system.code(seller), "buyer_otp": system.code(other)}
        assert seller.confirm(transfer_id, **codes).must(200)["status"] == "COMPLETED", "nobody waits for a notice"
        waiting = "SELECT 1 FROM outbox WHERE user_id = %s AND tries > 0 AND sent_at IS NULL"
        system.wait_until("it was tried", lambda: system.rows("sagas_db", waiting, buyer.user_id))
        assert letters(system, buyer) == []
    system.wait_until("the letter comes", lambda: [m for m in letters(system, buyer) if order_id in m["html"]])
    for party in (seller, other):
        system.wait_until("the SMS comes", partial(told, system, party, "has changed hands", transfer_id))


def test_a_crash_between_end_and_send_loses_no_notice(system: TestSystem) -> None:
    buyer = system.person()
    with system.smu.fault("hang", "/SendEmail", ms=60_000, effect=False):
        _, order_id = system.buy_seat(buyer)
        system.wait_until("a send hangs", lambda: system.smu.calls("/SendEmail"))
        system.stack.kill("orchestrator-service")
    system.stack.start("orchestrator-service")
    system.wait_until("the letter comes", lambda: [m for m in letters(system, buyer) if order_id in m["html"]])


def test_no_code_and_no_ticket_is_in_any_notice(system: TestSystem) -> None:
    seller, buyer, seat = pair(system)
    transfer_id = system.start_transfer(seller, buyer, seat)
    codes = {system.code(seller), system.code(buyer)}
    system.wait_until("both are told", lambda: told(system, seller, transfer_id) and told(system, buyer, transfer_id))
    texts = [m["text"] for party in (seller, buyer) for m in told(system, party)]
    assert not [text for text in texts for code in codes if code in text]
