"""The judge names each kind of fact that is broken by hand, and finds nothing in a run without faults."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from harness.api_client import ApiResponse
from tests.chaos.client import Client
from tests.chaos.end_state import Account, EndState, Order, Payment, Seat, Transfer
from tests.chaos.judge import CHECKS, Case, Growth, judge
from tests.chaos.ledger import Admission, Call, Ledger, Resale, Sale, Window
from tests.chaos.soak import UUID, check_logouts, check_passwords, find_tracebacks, shorten
from tests.chaos.stack import FAKES, GATEWAY

pytestmark = pytest.mark.chaos

PRICE, AMOUNT = Decimal(100), Decimal(70)
TOKEN, PASSWORD = "the token that has ended", "the last password"
ACT = Window("kill user-service", began=100.0, restored=110.0)


def make_case() -> Case:
    """A run in which every answer was true. `ann` sold a disputed ticket to `bob`, who bought and entered."""
    ledger = Ledger(
        opening={"ann": Decimal(1000), "bob": Decimal(1000)},
        sales={
            "o1": Sale("o1", "ann", "s1", PRICE, "CONFIRMED"),
            "o2": Sale("o2", "bob", "s2", PRICE, "CONFIRMED"),
            "o3": Sale("o3", "bob", "s3", PRICE, "FAILED"),
            "o4": Sale("o4", "bob", "s4", PRICE, "PENDING"),
            "o5": Sale("o5", "ann", "s3", PRICE, "REFUNDED"),
        },
        resales={
            "t1": Resale("t1", "s1", "ann", "bob", AMOUNT, "DISPUTED", AMOUNT),
            "t2": Resale("t2", "s2", "bob", "ann", AMOUNT, "FAILED"),
        },
        payments={"pi": ("ann", Decimal(5))},
        admissions=[Admission("s2", "key")],
        accounts={"carl@example.com": "carl"},
        logouts=["sid"],
        locks={"carl": True},
        commands=[("refund", "o5"), ("lock", "carl")],
        calls=[Call(50.0, 0.1, "POST /api/pay", 200), Call(105.0, 0.1, "POST /api/pay", 503)],
        windows=[replace(ACT)],
    )
    end = EndState(
        orders={
            key: Order(sale.customer, sale.seat, "FAILED" if sale.status == "PENDING" else sale.status, sale.price)
            for key, sale in ledger.sales.items()
        },
        transfers={
            key: Transfer(resale.seat, resale.seller, resale.buyer, resale.status, resale.amount, resale.frozen)
            for key, resale in ledger.resales.items()
        },
        seats={
            "s1": Seat("SOLD", "bob"),
            "s2": Seat("CHECKED_IN", "bob"),
            "s3": Seat("AVAILABLE", None),
            "s4": Seat("AVAILABLE", None),
        },
        accounts={"ann": Account(Decimal(905), AMOUNT), "bob": Account(Decimal(830), Decimal(0))},
        emails={"carl@example.com": "carl"},
        payments={"pi": Payment(1, Decimal(5))},
        admissions=Counter(s2=1),
        revoked={"sid"},
        locked={"carl"},
        records=Counter({("refund", "o5"): 1, ("lock", "carl"): 2}),
        sagas=Counter(DONE=9, UNDONE=2),
        hold_messages=set(ledger.sales),
    )
    return Case(ledger, end)


def sell_twice(case: Case) -> None:
    """Acknowledge two sales of one seat."""
    for key in ("o8", "o9"):
        case.ledger.sell(Sale(key, "bob", "s9", PRICE))


def put(holder: Any, key: str, **changes: Any) -> None:
    """Replace some fields of a row."""
    holder[key] = holder[key]._replace(**changes)


BREAKS: list[tuple[str, Callable[[Case], object]]] = [
    ("lost order", lambda case: case.end.orders.pop("o3")),
    ("changed order", lambda case: put(case.end.orders, "o1", status="FAILED")),
    ("changed order", lambda case: put(case.end.orders, "o3", status="CONFIRMED")),
    ("changed order", lambda case: put(case.end.orders, "o5", status="CONFIRMED")),
    ("changed order", lambda case: put(case.end.orders, "o1", charged=PRICE + 1)),
    ("refused order happened", lambda case: case.end.orders.update(o9=Order("bob", "s4", "CONFIRMED", PRICE))),
    ("two winners", sell_twice),
    ("early end of a hold", lambda case: case.ledger.early_ends.append("order o3")),
    ("wrong seat", lambda case: put(case.end.seats, "s1", status="AVAILABLE")),
    ("wrong seat", lambda case: put(case.end.seats, "s4", status="SOLD")),
    ("wrong owner", lambda case: put(case.end.seats, "s1", owner="ann")),
    ("endless hold", lambda case: put(case.end.seats, "s4", status="HELD")),
    ("endless hold", lambda case: put(case.end.orders, "o4", status="PENDING")),
    ("lost hold message", lambda case: case.end.hold_messages.discard("o4")),
    ("lost hold message", lambda case: setattr(case.end, "parked_messages", 1)),
    ("lost transfer", lambda case: case.end.transfers.pop("t2")),
    ("changed transfer", lambda case: put(case.end.transfers, "t1", status="COMPLETED")),
    ("changed transfer", lambda case: put(case.end.transfers, "t2", amount=AMOUNT + 1)),
    (
        "refused transfer happened",
        lambda case: case.end.transfers.update(t9=Transfer("s2", "bob", "ann", "PENDING_OTP", AMOUNT, Decimal(0))),
    ),
    ("wrong credits", lambda case: put(case.end.accounts, "bob", free=Decimal("830.01"))),
    ("wrong freeze", lambda case: put(case.end.accounts, "ann", free=Decimal(975), frozen=Decimal(0))),
    ("wrong payment", lambda case: put(case.end.payments, "pi", times=2)),
    ("wrong payment", lambda case: case.end.payments.clear()),
    ("lost admission", lambda case: put(case.end.seats, "s2", status="SOLD")),
    ("two admissions", lambda case: case.ledger.admissions.append(Admission("s2", "another key"))),
    ("unknown admission", lambda case: case.ledger.admissions.clear()),
    ("lost account", lambda case: case.end.emails.clear()),
    ("lost account", lambda case: case.end.accounts.pop("bob")),
    ("lost logout", lambda case: case.end.revoked.clear()),
    ("lost password", lambda case: case.ledger.refused_logins.append("carl@example.com")),
    ("lost lock", lambda case: case.end.locked.clear()),
    ("lost lock", lambda case: case.ledger.locks.update(carl=False)),
    ("lost record", lambda case: case.end.records.pop(("refund", "o5"))),
    ("unanswered request", lambda case: case.ledger.unanswered.append("pay: 503")),
    ("changed answer", lambda case: case.ledger.changed_answers.append("reserve")),
    ("answer against the spec", lambda case: case.ledger.wrong_answers.append("POST /api/pay → 418")),
    ("unexplained error", lambda case: case.ledger.calls.append(Call(10.0, 0.1, "POST /api/pay", 500))),
    ("unexplained error", lambda case: case.ledger.calls.append(Call(130.0, 0.1, "POST /api/pay", 0))),
    ("crashed client", lambda case: case.ledger.crashes.append("KeyError")),
    ("unfinished saga", lambda case: case.end.sagas.update(PARKED=1)),
    ("unfinished saga", lambda case: case.end.sagas.update(RUNNING=1)),
    ("unfinished saga", lambda case: setattr(case.end, "unsent_notices", 1)),
    ("slow recovery", lambda case: setattr(case.ledger.windows[0], "saga_seconds", 5.1)),
    ("slow recovery", lambda case: setattr(case.ledger.windows[0], "restored", float("inf"))),
    ("slow recovery", lambda case: setattr(case.ledger.windows[0], "key_seconds", 2.1)),
    ("traceback", lambda case: case.seen.tracebacks.append("ZeroDivisionError")),
    ("growth", lambda case: case.end.overdue_messages.add("o1")),
    ("growth", lambda case: case.seen.growth.append(Growth("threads of user-service", 100, 106, 0))),
]


def test_judge_finds_nothing_in_a_true_ledger() -> None:
    case = make_case()
    case.seen.growth.append(Growth("threads of user-service", 100, 105, 0))
    assert judge(case) == []


@pytest.mark.negative_control
@pytest.mark.parametrize(("kind", "break_fact"), BREAKS, ids=[f"{kind} {n}" for n, (kind, _) in enumerate(BREAKS)])
def test_judge_names_a_broken_fact(kind: str, break_fact: Callable[[Case], object]) -> None:
    case = make_case()
    break_fact(case)
    assert kind in {finding.partition(":")[0] for finding in judge(case)}


def test_every_kind_of_finding_has_a_broken_fact() -> None:
    assert {kind for kind, _ in BREAKS} == set(CHECKS)


def test_unexplained_error_names_the_act_before_it() -> None:
    case = make_case()
    case.ledger.calls += [Call(10.0, 0.1, "POST /api/pay", 500), Call(130.0, 0.1, "POST /api/pay", 503, "CODE")]
    before, after = judge(case)
    assert before.endswith("got 500 after 0.10 s, before any act")
    window = case.ledger.windows[-1]
    assert after.endswith(
        f"got 503 CODE after 0.10 s, {130.0 - window.restored:.1f} s after the recovery from: {window.act}"
    )


def test_unexplained_error_has_the_correlation_id_of_its_log_lines() -> None:
    case, correlation_id = make_case(), str(uuid4())
    case.ledger.calls.append(Call(1e9, 0.1, "POST /api/pay", 500, "INTERNAL_ERROR", correlation_id))
    [finding] = judge(case)
    assert UUID.findall(finding) == [correlation_id]


@dataclass
class ScriptedClient(Client):
    """A client that gets `status` for a request with the credentials of carl, and 401 for every other one."""

    status: int = 200

    def call(self, _method: str, _path: str, body: Any = None, *_: Any, token: str | None = None) -> ApiResponse:
        """Return an answer with the status."""
        is_carl = token == TOKEN or body == {"email": "carl@example.com", "password": PASSWORD}
        return ApiResponse(self.status if is_carl else 401, b"{}", {})


def make_town(status: int) -> Any:
    """The town at the end of a run, in which carl has logged out. Every request gets `status`."""
    ledger = Ledger(accounts={"carl@example.com": "carl"}, passwords={"carl@example.com": PASSWORD})
    return SimpleNamespace(ledger=ledger, staff=ScriptedClient("", status=status), ended_tokens=[TOKEN])


@pytest.mark.parametrize(("status", "findings"), [(401, 0), (200, 1), (503, 1)])
def test_token_that_is_accepted_after_its_logout_is_found(status: int, findings: int) -> None:
    check_logouts(town := make_town(status))
    assert len(town.ledger.open_sessions) == findings


@pytest.mark.parametrize(
    ("status", "is_locked", "findings"),
    [(200, False, 0), (401, False, 1), (403, False, 1), (403, True, 0), (200, True, 1)],
)
def test_login_against_the_last_password_or_lock_is_found(status: int, is_locked: bool, findings: int) -> None:
    town = make_town(status)
    town.ledger.locks["carl"] = is_locked
    check_passwords(town)
    assert len(town.ledger.refused_logins) == findings


def test_tracebacks_are_found_in_log_lines_and_as_text(tmp_path: Path) -> None:
    logged = json.dumps({"message": "unhandled ValueError", "exception": "Traceback …\nValueError: logged"})
    printed = "Traceback (most recent call last):\n  File 'x', line 1\nRuntimeError: printed"
    of_a_fake = json.dumps({"message": "Traceback (most recent call last)\nKeyError: fake"})
    for name, text in (("order-service", logged), (GATEWAY, printed), (FAKES[0], of_a_fake)):
        (tmp_path / name).write_text(f'{{"message": "ready"}}\n{text}\nthe end\n')

    def find_log(name: str) -> Path:
        (tmp_path / name).touch()
        return tmp_path / name

    stack: Any = SimpleNamespace(services=("order-service",), stack=SimpleNamespace(log_path=find_log))
    first, second, third = find_tracebacks(stack)
    assert "ValueError: logged" in first
    assert "KeyError: fake" in third
    assert second == f"{GATEWAY}: RuntimeError: printed"


def test_many_findings_of_a_kind_do_not_hide_the_others() -> None:
    many = [f"unexplained error: {number}" for number in range(400)]
    shown = shorten([*many, "traceback: ValueError"])
    assert shown == [*many[:5], "unexplained error: 395 more", "traceback: ValueError"]
    assert shorten(many[:5]) == many[:5]
