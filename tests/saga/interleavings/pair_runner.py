"""Runs a pair under one schedule against the services' real code, and reads its answers and its end state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from harness import invariants
from harness.api_client import ApiResponse
from services.inventory.servicer import Inventory
from services.orchestrator.app import Seams
from services.orchestrator.saga import recovery
from services.orchestrator.tickets import scan
from tests.concurrency import linearizability
from tests.concurrency.linearizability import Op
from tests.concurrency.seat_model import SeatModel, mark_lost_locks
from tests.saga.in_process.engine import Engine
from tests.saga.in_process.faults import Fault, FaultPlan, Kind
from tests.saga.in_process.faulty_transports import FaultyChannel, FaultyHttp, FaultyJournal, FaultyPublisher
from tests.saga.in_process.in_process_system import NoRevocations, RecordedMessages
from tests.saga.in_process.scenarios import Case
from tests.saga.interleavings.explorer import NOT_FOLLOWED
from tests.saga.interleavings.local_inventory import LocalChannel, SeatHistory
from tests.saga.interleavings.pairs import ACTS, EXPIRING, Process, prepare
from tests.saga.interleavings.scheduler import Scheduler, Step, current_actor, points
from tests.support.service_settings import SERVICE_KEYS

_LEASE = """  -- for an hour, so that only the actor RECOVERY ends it, and no slow machine
INSERT INTO heartbeats (instance_id, lease_until, unbroken_since)
VALUES (%(id)s, clock_timestamp() + interval '1 hour', clock_timestamp() - interval '1 hour')
ON CONFLICT (instance_id) DO UPDATE SET lease_until = excluded.lease_until RETURNING instance_id"""
TABLES = {  # the tables that the invariants of any time read, by database
    "users_db": tuple(invariants.TABLES["users_db"]),
    "seats_db": ("entry_logs",),
    "orders_db": ("transfers",),
}
ROWS = {  # of these tables, in one statement, because it runs after each write
    database: " UNION ALL ".join(
        f"SELECT '{table}', to_jsonb({table}) FROM {table} WHERE {invariants.TABLES[database][table]} = ANY(%(ids)s)"
        for table in tables
    )
    for database, tables in TABLES.items()
}
CHECKS = {
    "users_db": (invariants.i2_balances_are_their_entries, invariants.i8_payments_credit_once),
    "seats_db": (invariants.i5_one_admission_a_seat,),
    "orders_db": (invariants.i6_one_open_transfer_a_seat,),
}


@dataclass(frozen=True)
class Injected:
    """A fault of one call that the orchestrator of actor *a* or *b* makes."""

    actor: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.actor} {self.fault}"

    @property
    def is_death(self) -> bool:
        """Whether the process of the actor dies."""
        return self.fault.kind is Kind.DIES_AFTER


@dataclass(frozen=True)
class Result:
    """One execution. `answers` and `state` have names in place of ids."""

    answers: Mapping[str, str]
    state: str
    steps: tuple[Step, ...]
    edges: tuple[str, ...]  # after each step: the newest call of the orchestrator whose actor took it
    violations: tuple[str, ...]

    @property
    def outcome(self) -> str:
        """The answers and the end state in one text."""
        return f"{' | '.join(self.answers[name] for name in sorted(self.answers))} ⇒ {self.state}"


class _Inline:
    """An executor on the thread of the caller. It starts work at once, or when the result is needed."""

    def __init__(self, *_options: Any) -> None:
        self.map = map

    def submit(self, work: Callable[..., Any], *args: Any) -> Any:
        actor = current_actor()
        return _Lazy(work, args) if actor and actor.name == "b" else _run_now(work, args)


@dataclass
class _Lazy:
    work: Callable[..., Any]
    args: tuple[Any, ...]

    def result(self) -> Any:
        return self.work(*self.args)


def _run_now(work: Callable[..., Any], args: tuple[Any, ...]) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(work(*args))
    return future


@contextmanager
def open_runner(engine: Engine) -> Iterator[PairRunner]:
    """A runner with its own orchestrator processes on the system of `engine`."""
    with pytest.MonkeyPatch.context() as patch, points():
        patch.setattr(recovery, "ThreadPoolExecutor", _Inline)
        patch.setattr(scan, "ThreadPoolExecutor", _Inline)
        runner = PairRunner(engine)
        yield runner
        runner.close()


class PairRunner:
    """Two orchestrator processes, one for each actor. A third actor *c* shares the second one."""

    def __init__(self, engine: Engine) -> None:
        self.system = engine.system
        self._engine = engine
        self._servicer = Inventory(self.system.dbs["inventory"], SERVICE_KEYS)
        self.plans = {name: FaultPlan() for name in "ab"}
        self.history = SeatHistory(lambda: 0.0)
        self._orchestrators = {name: self.system.orchestrator(self._seams(name)) for name in "ab"}
        self._apps = {name: one.create_app(NoRevocations()) for name, one in self._orchestrators.items()}
        self._superuser = self.system.databases.superuser("user")

    def close(self) -> None:
        """Close the connections."""
        self._superuser.close()
        for orchestrator in self._orchestrators.values():
            orchestrator.db.close()

    def _seams(self, name: str) -> Seams:
        def get_plan() -> FaultPlan:
            return self.plans[name]

        channel = FaultyChannel(get_plan, LocalChannel(self._servicer, lambda: self.history))  # type: ignore[arg-type]
        return Seams(
            transport=FaultyHttp(get_plan, self.system.http),
            channel=lambda _address: channel,  # type: ignore[arg-type,return-value]
            publisher=FaultyPublisher(get_plan, RecordedMessages()),
            journal=partial(FaultyJournal, get_plan=get_plan),
        )

    def execute(
        self, situation: str, prefix: Sequence[str], acts: Mapping[str, str], injected: Injected | None = None
    ) -> Result:
        """Prepare the situation, run the actors of `acts` under a schedule, recover and sweep, and read the result."""
        case = Case(self.system, self._engine.healthy_app, self.system.inbox, self.system.new_seat())
        self.system.beat(self._engine.healthy)
        prepare(case, situation)
        prepared = dict(case.ids)
        for name, orchestrator in self._orchestrators.items():
            self.plans[name] = FaultPlan((injected.fault,) if injected and name == injected.actor else ())
            orchestrator.db.statement(_LEASE, id=orchestrator.journal.instance_id)
        scope = invariants.Scope(self._seats(case), list(case.people.values()))
        monitor, edges = _Monitor(self.system.connect, scope), list[str]()

        def note(step: Step) -> None:
            edges.append("".join(self.plans["a" if step.actor == "a" else "b"].seen[-1:]))
            monitor.check(step)

        scheduler = Scheduler(self._superuser, note)
        start = self.system.seat(case.seat)
        self.history = SeatHistory(lambda: float(len(scheduler.steps)))
        results = scheduler.run({name: self._work(act, name, case) for name, act in acts.items()}, prefix)
        self._come_to_rest("OUTBOX" in acts.values())
        snapshot = invariants.read(self.system.connect, scope)
        self.system.delete_sagas()
        found = [*monitor.violations, *invariants.check_snapshot(snapshot), *_check_results(results)]
        found += [NOT_FOLLOWED] * (scheduler.has_diverged and injected is None)
        expires = any(act in EXPIRING for act in acts.values())
        found += _check_history(self.history, start, str(case.people["buyer"]) if expires else "")
        answers = {name: _describe(result) for name, result in results.items()}
        state = describe_state(case, prepared, snapshot)
        return Result(answers, state, tuple(scheduler.steps), tuple(edges), tuple(found))

    def _seats(self, case: Case) -> list[UUID]:
        return [case.seat, *(UUID(case.ids[name]) for name in ("other seat",) if name in case.ids)]

    def _work(self, act: str, name: str, case: Case) -> Callable[[], Any]:
        own, other = ("a", "b") if name == "a" else ("b", "a")
        process = Process(self._orchestrators[own], self._apps[own], self._orchestrators[other])
        return lambda: ACTS[act](case, process)

    def _come_to_rest(self, sends_notices: bool) -> None:
        """Do what production does within a minute: recovery after both processes have died, and the sweepers."""
        if sends_notices:
            self.system.rescuer.outbox.tick()
        for orchestrator in self._orchestrators.values():
            orchestrator.journal.resign()
        self.system.recover()
        self.system.sweep()


@dataclass
class _Monitor:
    """Checks the invariants that hold at any time after each committed write, in the database of the write."""

    connect: Any
    scope: invariants.Scope

    def __post_init__(self) -> None:
        self.violations: list[str] = []

    def check(self, step: Step) -> None:
        if not step.commits:
            return
        for database in {table.partition(".")[0] for table, _, writes in step.footprint if writes} & TABLES.keys():
            snapshot = invariants.Snapshot({table: [] for table in TABLES[database]})
            cursor = self.connect(database).cursor(cursor_factory=invariants.TUPLES)
            cursor.execute(ROWS[database], {"ids": self.scope.users if database == "users_db" else self.scope.seats})
            for table, row in cursor:
                snapshot.rows[table].append(row)
            found = [f"{check.__name__}: {line}" for check in CHECKS[database] for line in check(snapshot)]
            self.violations += [line for line in found if line not in self.violations]


def _check_results(results: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {result!r}" for name, result in results.items() if isinstance(result, BaseException)]


def _check_history(history: SeatHistory, start: Mapping[str, Any], expires_of: str) -> list[str]:
    """Check that some order of the calls on the seat explains their answers. The holds of `expires_of` may expire."""
    order, owner = start["order_id"] or start["hold_id"] or "", start["owner_user_id"] or start["held_by_user_id"] or ""
    first = (start["status"], str(order), str(owner))
    ops = history.ops[str(start["seat_id"])]
    holders = {first[1]: first[2]} | {op.args[0]: op.args[1] for op in ops if op.what == "reserve"}
    expiries = [Op("clock", "release", (hold,), None, 0.0) for hold, user in holders.items() if user == expires_of]
    whole = [
        Op(op.client, op.what, (op.args[0], holders.get(op.args[0], "")), op.result, op.start, op.end)
        if op.what == "release"
        else op
        for op in (*expiries, *ops)
    ]
    failure = linearizability.check({"seat": mark_lost_locks(whole)}, SeatModel(), first)
    return [f"the history of the seat is not linearizable:\n{failure}"] if failure else []


# ── the outcome in names


def _describe(answer: Any) -> str:
    if not isinstance(answer, ApiResponse):
        return "-"
    if answer.error_code:
        return f"{answer.status} {answer.error_code}"
    data = answer.data if answer.body and isinstance(answer.data, dict) else {}
    return f"{answer.status} {data.get('result') or data.get('status') or ''}".strip()


def describe_state(case: Case, prepared: Mapping[str, str], found: invariants.Snapshot) -> str:
    """The end state with names: seats, users, orders, transfers, entries, holds, sagas and notices.

    A FAILED order or transfer counts only if it was prepared, because one of the execution has no effect.
    """
    names = {user: who for who, user in reversed(case.people.items())} | {None: "-", case.seat: "seat"}

    def name(value: Any) -> str:
        return names.get(value, "other")

    lines: dict[str, list[str]] = defaultdict(list)
    for seat in found["seats"]:
        who = name(seat["owner_user_id"] or seat["held_by_user_id"])
        lines[name(seat["seat_id"])].append(f"{seat['status']} {who}")
    for user in found["users"]:
        who = name(user["user_id"])
        if who != "staff":
            frozen = f"+{user['frozen_credits']:.0f}" if user["frozen_credits"] else ""
            lines["credits"].append(f"{who} {user['credit_balance']:.0f}{frozen}")
    for order in found["orders"]:
        code = (
            " verified" if order["otp_verified_at"] else f" {order['otp_failures']} wrong" * bool(order["otp_failures"])
        )
        if order["status"] != "FAILED" or str(order["order_id"]) == prepared.get("order_id"):
            lines["orders"].append(f"{name(order['user_id'])} {order['status']}{code}")
    for transfer in found["transfers"]:
        is_open = transfer["status"] in invariants.OPEN
        checked = [who for who in ("seller", "buyer") if is_open and transfer[f"{who}_otp_verified"]]
        if transfer["status"] != "FAILED" or str(transfer["transfer_id"]) in prepared.values():
            lines["transfers"].append(" ".join([name(transfer["buyer_user_id"]), transfer["status"], *checked]))
    lines["scans"] = [entry["result"] for entry in found["entry_logs"]]
    lines["sagas"] = [
        f"{saga['flow']} {saga['status']}" for saga in found["sagas"] if saga["status"] in ("DONE", "PARKED")
    ]
    lines["notices"] = [f"{n['message']} {name(n['user_id'])} {n['tries']}" for n in found["outbox"]]
    return "; ".join(f"{what}: {', '.join(sorted(values))}" for what, values in sorted(lines.items()) if values)
