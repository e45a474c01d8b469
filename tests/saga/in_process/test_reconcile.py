"""`admin reconcile` after the restore of one service to an earlier moment. Each test makes one kind of difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from services.chassis import json_codec
from services.orchestrator import admin, audit
from services.orchestrator.saga.reconcile import EARLIER_SECONDS
from tests.saga.in_process import db_builders
from tests.saga.in_process.engine import Engine
from tests.saga.in_process.faults import Fault, Kind
from tests.saga.in_process.scenarios import FLOWS, PRICE, Case, Flow

pytestmark = pytest.mark.saga

TABLES: Mapping[str, tuple[tuple[str, str], ...]] = {  # with the column of the case, children first
    "user": (("credit_holds", "user_id"), ("credit_entries", "user_id"), ("users", "user_id")),
    "order": (("transfers", "seat_id"), ("orders", "seat_id")),
    "inventory": (("seats", "seat_id"),),
}
Reconcile = Callable[..., tuple[int, list[str]]]


@dataclass(frozen=True)
class Moment:
    """The rows of a case in one service at one moment, to which `restore` returns the service."""

    case: Case
    service: str
    rows: Mapping[str, Any]

    @classmethod
    def of(cls, case: Case, service: str) -> Moment:
        rows = {table: cls._select(case, service, table, f"{key} = ANY(%(ids)s)") for table, key in TABLES[service]}
        return cls(case, service, {**rows, "effects": cls._select(case, service, "effects", "key LIKE ANY(%(keys)s)")})

    def restore(self) -> None:
        conditions = [*((table, f"{key} = ANY(%(ids)s)") for table, key in TABLES[self.service])]
        conditions.append(("effects", "key LIKE ANY(%(keys)s)"))
        with self.case.system.dbs[self.service].transaction() as tx:
            for table, condition in conditions:
                tx.run(f"DELETE FROM {table} WHERE {condition}", **_ids(self.case, self.service))
            for table, _ in reversed(conditions):
                sql = f"INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, %(rows)s)"
                tx.run(sql, rows=json_codec.encode(self.rows[table]).decode())

    @staticmethod
    def _select(case: Case, service: str, table: str, condition: str) -> Any:
        sql = f"SELECT coalesce(jsonb_agg(to_jsonb({table})), '[]') AS rows FROM {table} WHERE {condition}"
        return case.system.row(service, sql, **_ids(case, service))["rows"]


def _ids(case: Case, service: str) -> dict[str, Any]:
    subjects = [value for name, value in case.ids.items() if name in ("order_id", "transfer_id")]
    ids = list(case.people.values()) if service == "user" else [case.seat]
    return {"ids": ids, "keys": [f"%{subject}%" for subject in subjects]}


@pytest.fixture
def reconcile(engine: Engine, capsys: pytest.CaptureFixture[str]) -> Reconcile:
    """Runs the command for one order or transfer. Returns its status and its lines."""

    def run(subject: str, *options: str) -> tuple[int, list[str]]:
        arguments = ["reconcile", "--only", subject, "--margin", "0", "--by", "ada", *options]
        status = admin.main(arguments, orchestrator=engine.healthy)
        return status, capsys.readouterr().out.splitlines()

    return run


STAGES = ("reserve", "pay", "initiate", "confirm", "dispute")
LOST = {  # flow and restored service: the steps whose effects are lost
    ("pay", "user"): "deduct_credits",
    ("pay", "order"): "confirm_order",
    ("pay", "inventory"): "confirm_seat",
    ("refund", "user"): "refund_charge",
    ("refund", "order"): "mark_refunded",
    ("refund", "inventory"): "cancel_sale",
    ("confirm", "user"): "hold_buyers_credits and pay_seller",
    ("confirm", "order"): "complete_transfer",
    ("confirm", "inventory"): "update_owner",
    ("dispute", "user"): "freeze_what_is_left",
    ("dispute", "order"): "dispute_transfer and record_freeze",
    ("reverse", "user"): "pay_buyer_back",
    ("reverse", "order"): "mark_reversed",
    ("reverse", "inventory"): "restore_owner",
    ("dismiss", "user"): "unfreeze_dispute",
    ("dismiss", "order"): "dismiss_dispute",
}


def stages_before(flow: str) -> tuple[str, ...]:
    """The flows that real requests run before `flow`."""
    ends = {"reserve": 0, "pay": 1, "refund": 2, "initiate": 2, "confirm": 3, "dispute": 4}
    return STAGES[: ends.get(flow, 5)]


def start(engine: Engine, flow: str) -> Case:
    """A case whose next request is `flow`. Real requests have run before, so the journal contains them."""
    case = engine.prepare(Flow("nothing", lambda _: None, FLOWS["pay"].act))
    case.people = {"buyer": case.system.new_user(), "other": case.system.new_user()}
    case.people["staff"] = case.system.new_user("0.00", role="staff")
    for stage in stages_before(flow):
        run(case, stage)
    return case


def run(case: Case, flow: str) -> None:
    """Send the request of a flow. A transfer sells the ticket of the buyer to another user."""
    if flow == "initiate":
        case.people |= {"seller": case.people["buyer"], "buyer": case.people["other"]}
    case.run(flow).must(201 if flow == "initiate" else 200)
    if flow == "initiate":
        case.ids |= {"seller_code": case.code("seller"), "buyer_code": case.code("buyer")}


def subject_of(case: Case, flow: str) -> str:
    return case.ids["order_id" if flow in ("reserve", "pay", "refund") else "transfer_id"]


@pytest.mark.parametrize(("flow", "service"), LOST)
def test_lost_effect_is_listed_and_repeated(engine: Engine, reconcile: Reconcile, flow: str, service: str) -> None:
    case = start(engine, flow)
    before = Moment.of(case, service)
    run(case, flow)
    assert reconcile(subject_of(case, flow)) == (0, [])
    before.restore()
    status, [line] = reconcile(subject_of(case, flow))
    assert (status, f"without the effect of {LOST[flow, service]}. Settling repeats it." in line) == (1, True), line
    assert reconcile(subject_of(case, flow), "--settle")[0] == 0
    assert reconcile(subject_of(case, flow)) == (0, [])
    engine.assert_invariants(case)


@pytest.mark.parametrize("service", ["order", "inventory"])
def test_sale_is_repeated_although_its_reserve_is_lost(engine: Engine, reconcile: Reconcile, service: str) -> None:
    case = start(engine, "reserve")
    before = Moment.of(case, service)
    run(case, "reserve")
    run(case, "pay")
    before.restore()
    assert reconcile(case.ids["order_id"], "--settle")[0] == 0
    engine.assert_invariants(case)


def test_order_that_expired_after_its_restore_is_confirmed(engine: Engine, reconcile: Reconcile) -> None:
    case = start(engine, "pay")
    before = Moment.of(case, "order")
    run(case, "pay")
    before.restore()
    with case.system.dbs["order"].transaction() as tx:
        tx.run("UPDATE orders SET status = 'FAILED' WHERE order_id = %(id)s", id=case.ids["order_id"])
    assert reconcile(case.ids["order_id"], "--settle")[0] == 0
    engine.assert_invariants(case)


def test_transfer_is_completed_although_its_start_is_lost(engine: Engine, reconcile: Reconcile) -> None:
    case = start(engine, "initiate")
    before = Moment.of(case, "order")
    run(case, "initiate")
    run(case, "confirm")
    before.restore()
    status, [line] = reconcile(case.ids["transfer_id"])
    assert (status, "amount 150.00" in line, "seller_user_id" in line) == (1, True, True), line
    assert reconcile(case.ids["transfer_id"], "--settle")[0] == 0
    engine.assert_invariants(case)


def test_sale_and_its_refund_are_repeated_in_their_order(engine: Engine, reconcile: Reconcile) -> None:
    case = start(engine, "pay")
    before = Moment.of(case, "inventory")
    run(case, "pay")
    run(case, "refund")
    before.restore()
    assert reconcile(case.ids["order_id"], "--settle")[0] == 0
    assert case.status() == "AVAILABLE"
    engine.assert_invariants(case)


def test_charge_of_an_undone_sale_is_returned(engine: Engine, reconcile: Reconcile) -> None:
    """User was restored to the moment between the charge and its return."""
    case = start(engine, "pay")
    before = Moment.of(case, "user")
    engine.act(FLOWS["pay"], case, Fault("inventory ConfirmSeat", Kind.DOWN))
    before.restore()
    order_id, buyer = case.ids["order_id"], case.people["buyer"]
    users = case.system.rescuer.participants.users
    users.deduct(f"pay:{order_id}:1:deduct_credits", str(buyer), PRICE)
    status, [line] = reconcile(order_id)
    assert (status, "but deduct_credits is in effect. Settling undoes it." in line) == (1, True), line
    assert reconcile(order_id, "--settle")[0] == 0
    assert case.balance("buyer") == 1000
    engine.assert_invariants(case)


@pytest.mark.parametrize(("lost", "seat"), [(None, "SOLD"), ("inventory", "HELD")])
def test_saga_that_the_journal_lacks_is_ended_by_recovery(
    engine: Engine, reconcile: Reconcile, lost: str | None, seat: str
) -> None:
    """The journal was restored to a moment before the pay. Without its pivot, the pay is undone."""
    case = start(engine, "pay")
    before = Moment.of(case, lost) if lost else None
    run(case, "pay")
    with case.system.dbs["orchestrator"].transaction() as tx:
        tx.run("DELETE FROM outbox")
        tx.run("DELETE FROM sagas WHERE flow = 'pay'")
    if before:
        before.restore()
    status, [line] = reconcile(case.ids["order_id"])
    assert (status, "not in the journal, but deduct_credits and confirm_order" in line) == (1, True), line
    assert reconcile(case.ids["order_id"], "--settle")[0] == 0
    engine.recover()
    assert reconcile(case.ids["order_id"]) == (0, [])
    assert case.status() == seat
    engine.assert_invariants(case)


def test_lost_charge_beyond_the_balance_needs_a_person(engine: Engine, reconcile: Reconcile) -> None:
    case = start(engine, "pay")
    before = Moment.of(case, "user")
    run(case, "pay")
    before.restore()
    db_builders.add_credits(case.system, case.people["buyer"], Decimal(-900))
    assert "A person must decide: user" in reconcile(case.ids["order_id"])[1][0]
    status, [line] = reconcile(case.ids["order_id"], "--settle")
    assert (status, "has 100.00 of 200.00 credits" in line) == (1, True), line
    db_builders.add_credits(case.system, case.people["buyer"], Decimal(900))
    assert reconcile(case.ids["order_id"], "--settle")[0] == 0, "the refusal was stored"
    engine.assert_invariants(case)


def test_seat_that_another_buyer_has_got_needs_a_person(engine: Engine, reconcile: Reconcile) -> None:
    case = start(engine, "reserve")
    before = Moment.of(case, "inventory")
    run(case, "reserve")
    run(case, "pay")
    before.restore()
    case.caller("other").post("/api/reserve", {"seat_id": case.seat}).must(200)
    status, [line] = reconcile(case.ids["order_id"], "--settle")
    assert (status, "A person must decide: the seat is HELD for another order." in line) == (1, True), line
    assert case.balance("other") == 1000


def test_live_young_old_and_hand_resolved_sagas_are_left_alone(engine: Engine, reconcile: Reconcile) -> None:
    case = start(engine, "pay")
    before = Moment.of(case, "user")
    run(case, "pay")
    before.restore()
    order_id = case.ids["order_id"]
    assert reconcile(order_id, "--margin", "60") == (0, [])
    later = datetime.now(UTC) + timedelta(seconds=1)
    assert reconcile(order_id, "--since", (later + timedelta(seconds=EARLIER_SECONDS)).isoformat()) == (0, [])
    status, [_] = reconcile(order_id, "--since", later.isoformat())
    assert status == 1, "a clock can be behind, and a saga can be under way at that time"
    with case.system.dbs["orchestrator"].transaction() as tx:
        tx.run("""INSERT INTO sagas (flow, subject, attempt, given, deadline, park_after)
            SELECT 'refund', subject, 1, '{}', 'infinity', 'infinity' FROM sagas WHERE flow = 'pay'""")
    assert reconcile(order_id, "--settle") == (0, [])
    with case.system.dbs["orchestrator"].transaction() as tx:
        tx.run("DELETE FROM sagas WHERE flow = 'refund'")
        by_hand = """UPDATE sagas SET result = result || '{"resolved_by_hand": "ticket 4711"}' WHERE flow = 'pay'"""
        tx.run(by_hand)
    assert reconcile(order_id, "--settle") == (0, [])


def test_settling_is_recorded_with_the_operator(engine: Engine, reconcile: Reconcile) -> None:
    case = start(engine, "pay")
    before = Moment.of(case, "user")
    run(case, "pay")
    before.restore()
    reconcile(case.ids["order_id"])
    reconcile(case.ids["order_id"], "--settle")
    records = audit.list_records(case.system.dbs["orchestrator"], 1, 100)[0]
    found = [(r["operator"], r["action"], r["note"]) for r in records if str(r["subject"]) == case.ids["order_id"]]
    assert found == [("ada", "reconcile", "MISSING: deduct_credits")]


def test_dismissed_dispute_is_repeated_in_its_order(engine: Engine, reconcile: Reconcile) -> None:
    """User lost the freeze and its end. The freeze is repeated first, and then a second difference appears: its end."""
    case = start(engine, "dispute")
    before = Moment.of(case, "user")
    run(case, "dispute")
    run(case, "dismiss")
    before.restore()
    status, lines = reconcile(case.ids["transfer_id"], "--settle")
    assert (status, [line.split()[0] for line in lines]) == (0, ["dispute", "dismiss"]), lines
    engine.assert_invariants(case)


def test_refunded_sale_that_the_journal_lacks_is_no_difference(engine: Engine, reconcile: Reconcile) -> None:
    """The pay is left out, because recovery could not charge again what was refunded."""
    case = start(engine, "pay")
    run(case, "pay")
    run(case, "refund")
    with case.system.dbs["orchestrator"].transaction() as tx:
        tx.run("DELETE FROM outbox")
        tx.run("DELETE FROM sagas WHERE flow <> 'reserve'")
    lines = reconcile(case.ids["order_id"], "--settle")[1]
    assert [line.split()[0] for line in lines] == ["refund"], lines
    engine.recover()
    assert reconcile(case.ids["order_id"]) == (0, [])
    engine.assert_invariants(case)
