"""Notices: e-mails about bookings and refunds, SMS about transfers. Each is sent, even after a failure."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import urllib3

from tests.e2e.test_transfers import make_parties
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]


def list_emails(system: TestSystem, to: Person) -> list[dict[str, Any]]:
    """List the e-mails to a person, newest first."""
    url = f"{system.smu.url}/inbox?email={to.email}"
    answer = urllib3.request("GET", url, headers={"Accept": "application/json"})
    return [m for m in json.loads(answer.data)["messages"] if m["kind"] == "email"]


def list_sms(system: TestSystem, to: Person, *words: str) -> list[dict[str, Any]]:
    """List the SMS to a person that contain all these words."""
    messages = [m for m in system.inbox.messages(to.phone) if m["kind"] == "sms"]
    return [m for m in messages if all(word in m["text"] for word in words)]


def test_a_booking_and_its_refund_send_one_email_each(system: TestSystem) -> None:
    buyer = system.person()
    _, order_id = system.buy_seat(buyer)
    (booked,) = system.wait_until("the e-mail about the booking", lambda: list_emails(system, buyer))
    assert booked["subject"] == "Your TicketRemaster booking"
    assert order_id in booked["html"]
    system.staff().refund(order_id).must(200)
    system.wait_until("the e-mail about the refund", lambda: len(list_emails(system, buyer)) == 2)
    refunded, _ = list_emails(system, buyer)
    assert refunded["subject"] == "Your TicketRemaster refund"
    buyer.pay(order_id)
    assert len(list_emails(system, buyer)) == 2


def test_both_parties_get_an_sms_for_each_status(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.dispute_transfer(seller, buyer, seat, 90)
    system.staff().transfer("reverse", transfer_id).must(200)
    for party in (seller, buyer):
        for word in ("is for the transfer", "has changed hands", "is disputed", "was reversed"):
            system.wait_until(f"an SMS that it {word}", partial(list_sms, system, party, word, transfer_id))
        assert len(list_sms(system, party, transfer_id)) == 4, "one SMS for each status"


def test_notices_are_sent_after_an_outage_of_smu(system: TestSystem) -> None:
    buyer, (seller, other, seat) = system.person(), make_parties(system)
    transfer_id = system.start_transfer(seller, other, seat, 90)
    with system.smu.fault("status", "/Send[SE]*", status=500):
        _, order_id = system.buy_seat(buyer)
        codes = {"seller_otp": system.code(seller), "buyer_otp": system.code(other)}
        assert seller.confirm(transfer_id, **codes).must(200)["status"] == "COMPLETED", (
            "the answer does not wait for the notice"
        )
        waiting = "SELECT 1 FROM outbox WHERE user_id = %s AND tries > 0 AND sent_at IS NULL"
        system.wait_until("the outbox tried to send it", lambda: system.rows("sagas_db", waiting, buyer.user_id))
        assert list_emails(system, buyer) == []
    system.wait_until("the e-mail arrives", lambda: [m for m in list_emails(system, buyer) if order_id in m["html"]])
    for party in (seller, other):
        system.wait_until("the SMS arrives", partial(list_sms, system, party, "has changed hands", transfer_id))


def test_a_crash_before_the_send_loses_no_notice(system: TestSystem) -> None:
    buyer = system.person()
    with system.smu.fault("hang", "/SendEmail", ms=60_000, effect=False):
        _, order_id = system.buy_seat(buyer)
        system.wait_until("a send hangs", lambda: system.smu.calls("/SendEmail"))
        system.stack.kill("orchestrator-service")
    system.stack.start("orchestrator-service")
    system.wait_until("the e-mail arrives", lambda: [m for m in list_emails(system, buyer) if order_id in m["html"]])


def test_no_notice_contains_a_code(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.start_transfer(seller, buyer, seat)
    codes = {system.code(seller), system.code(buyer)}
    system.wait_until(
        "both get an SMS", lambda: list_sms(system, seller, transfer_id) and list_sms(system, buyer, transfer_id)
    )
    texts = [m["text"] for party in (seller, buyer) for m in list_sms(system, party)]
    assert not [text for text in texts for code in codes if code in text]
