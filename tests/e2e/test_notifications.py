"""Everybody is told, in the end: by e-mail of bookings and refunds, by SMS of transfers (issue 5)."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import urllib3

from tests.e2e.people import Person
from tests.e2e.test_transfers import pair
from tests.e2e.town import Town

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]


def letters(town: Town, to: Person) -> list[dict[str, Any]]:
    """The e-mails that went to somebody, newest first."""
    url = f"{town.smu.url}/inbox?email={to.email}"
    answer = urllib3.request("GET", url, headers={"Accept": "application/json"})
    return [m for m in json.loads(answer.data)["messages"] if m["kind"] == "email"]


def told(town: Town, to: Person, *words: str) -> list[dict[str, Any]]:
    """The SMS to somebody that have all these words."""
    messages = [m for m in town.inbox.messages(to.phone) if m["kind"] == "sms"]
    return [m for m in messages if all(word in m["text"] for word in words)]


def test_a_booking_and_its_refund_are_told_by_e_mail_once(town: Town) -> None:
    buyer = town.person()
    _, order_id = town.bought(buyer)
    (booked,) = town.until("the booking's letter", lambda: letters(town, buyer))
    assert booked["subject"] == "Your TicketRemaster booking"
    assert order_id in booked["html"]
    town.staff().refund(order_id).must(200)
    refunded, _ = town.until(
        "the refund's letter", lambda: letters(town, buyer)[:2] if len(letters(town, buyer)) > 1 else []
    )
    assert refunded["subject"] == "Your TicketRemaster refund"
    buyer.pay(order_id)
    assert len(letters(town, buyer)) == 2


def test_both_parties_are_told_of_each_turn_of_a_transfer(town: Town) -> None:
    seller, buyer, seat = pair(town)
    transfer_id = town.disputed(seller, buyer, seat, 90)
    town.staff().transfer("reverse", transfer_id).must(200)
    for party in (seller, buyer):
        for word in ("was started", "has changed hands", "is disputed", "was reversed"):
            town.until(f"told that it {word}", partial(told, town, party, word, transfer_id))
        assert len(told(town, party, transfer_id)) == 4, "each once"


def test_what_smu_could_not_take_is_delivered_when_it_is_back(town: Town) -> None:
    buyer, (seller, other, seat) = town.person(), pair(town)
    transfer_id = town.initiated(seller, other, seat, 90)
    with town.smu.fault("status", "/Send[SE]*", status=500):
        _, order_id = town.bought(buyer)
        codes = {"seller_otp": town.code(seller), "buyer_otp": town.code(other)}
        assert seller.confirm(transfer_id, **codes).must(200)["status"] == "COMPLETED", "nobody waits for a notice"
        waiting = "SELECT 1 FROM outbox WHERE user_id = %s AND tries > 0 AND sent_at IS NULL"
        town.until("it was tried", lambda: town.rows("sagas_db", waiting, buyer.user_id))
        assert letters(town, buyer) == []
    town.until("the letter comes", lambda: [m for m in letters(town, buyer) if order_id in m["html"]])
    for party in (seller, other):
        town.until("the SMS comes", partial(told, town, party, "has changed hands", transfer_id))


def test_a_crash_between_end_and_send_loses_no_notice(town: Town) -> None:
    buyer = town.person()
    with town.smu.fault("hang", "/SendEmail", ms=60_000, effect=False):
        _, order_id = town.bought(buyer)
        town.until("a send hangs", lambda: town.smu.calls("/SendEmail"))
        town.stack.kill("orchestrator-service")
    town.stack.start("orchestrator-service")
    town.until("the letter comes", lambda: [m for m in letters(town, buyer) if order_id in m["html"]])


def test_no_code_and_no_ticket_is_in_any_notice(town: Town) -> None:
    seller, buyer, seat = pair(town)
    transfer_id = town.initiated(seller, buyer, seat)
    codes = {town.code(seller), town.code(buyer)}
    town.until("both are told", lambda: told(town, seller, transfer_id) and told(town, buyer, transfer_id))
    texts = [m["text"] for party in (seller, buyer) for m in told(town, party)]
    assert not [text for text in texts for code in codes if code in text]
