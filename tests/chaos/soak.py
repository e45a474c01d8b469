"""One run: start the system, let clients and acts work on it, wait until it is idle, judge it, and write the report."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2

from harness import invariants
from harness.report import charts
from harness.runtime.compose import ROOT
from harness.runtime.process import wait_for
from tests.chaos import end_state, growth, nemesis
from tests.chaos.client import Book
from tests.chaos.judge import Case, Observations, find_slow_recovery, judge
from tests.chaos.ledger import Call, Ledger, Window
from tests.chaos.load import Load, settle_town
from tests.chaos.nemesis import KINDS, Act, Kind
from tests.chaos.stack import FAKES, GATEWAY, HEALTHY_SECONDS, HOLD_SECONDS, ChaosStack
from tests.chaos.visits import Town, read_resale, read_sale

REPORTS = ROOT / "reports"
QUIET_SECONDS = 6.0  # before the first act and after the last one
ANSWER_SECONDS = 30.0  # after the end of the load, in which every request gets its final answer
IDLE_SECONDS = 60.0
STEP_SECONDS = 1.0  # of the timeline
OLDER_SAGAS = "SELECT count(*)::int AS number FROM sagas WHERE status = 'RUNNING' AND created_at < to_timestamp(%s)"
VERIFIED = """SELECT count(*)::int AS number FROM transfers
WHERE status = 'PENDING_OTP' AND seller_otp_verified AND buyer_otp_verified"""
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PRINTED = "Traceback (most recent call last)"
SHOWN = 20  # log lines, logouts and logins
SHOWN_OF_A_KIND = 5


@dataclass
class Result:
    """The result of a run."""

    seed: int
    seconds: float
    acts: Sequence[Act]
    kinds: Mapping[str, Kind]
    case: Case
    findings: list[str]
    lines: list[str]

    @property
    def has_failed(self) -> bool:
        """Whether the judge found anything."""
        return bool(self.findings)

    def explain(self, again: str = "") -> str:
        """Return the first findings of each kind, the acts, and log lines about the findings. `again` is a command."""
        again = again or f"S={self.seconds:g} SEED={self.seed} make chaos"
        acts = [
            f"  {window.began - self.case.ledger.calls[0].at:6.1f} s  {window.act}"
            for window in self.case.ledger.windows
        ]
        return "\n".join([f"run again: {again}", *shorten(self.findings), "acts:", *acts, "log:", *self.lines])


def shorten(findings: Sequence[str]) -> list[str]:
    """Return the first findings of each kind, and how many more there are."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        kinds[finding.partition(":")[0]].append(finding)
    shown: list[str] = []
    for kind, found in kinds.items():
        shown += found[:SHOWN_OF_A_KIND]
        if len(found) > SHOWN_OF_A_KIND:
            shown.append(f"{kind}: {len(found) - SHOWN_OF_A_KIND} more")
    return shown


def soak(
    stack: ChaosStack,
    seed: int,
    seconds: float,
    acts: Sequence[Act] | None = None,
    kinds: Mapping[str, Kind] = KINDS,
) -> Result:
    """Run the load for `seconds` with acts of `kinds` by `seed`, or with `acts`, and return the result."""
    ledger, seen = Ledger(), Observations()
    book = Book(ledger)
    planned = nemesis.plan(seed, seconds - 2 * QUIET_SECONDS, kinds) if acts is None else acts
    with stack.supervised():
        town, event = settle_town(stack, book, seconds)
        began = time.monotonic()
        load = Load(town, seed, stack.clients, stack.pause_seconds)
        load.start()
        try:
            time.sleep(QUIET_SECONDS)
            before = growth.measure(stack)
            performed: list[Act] = []
            for act in planned:
                if acts is None and time.monotonic() > began + seconds - QUIET_SECONDS:
                    break  # an act can take longer than planned, but the run must not
                time.sleep(act.rest)
                before = growth.renew(before, stack)
                performed.append(act)
                if not _perform(stack, ledger, act, kinds):
                    break
            time.sleep(max(QUIET_SECONDS, began + seconds - time.monotonic()))
        finally:
            book.gives_up_at = time.monotonic() + ANSWER_SECONDS
            load.stop()
        if ledger.windows and not ledger.windows[-1].is_restored:  # then the databases may not answer
            case = Case(ledger, end_state.EndState(), seen)
            findings = [f"slow recovery: {finding}" for finding in find_slow_recovery(case)]
            return Result(seed, seconds, performed, kinds, case, findings, [])
        end = _settle(stack, town, event)
        seen.growth = growth.await_rest(before, partial(growth.measure, stack), growth.slack_with(stack.clients))
        seen.tracebacks = find_tracebacks(stack)
        check_logouts(town)
        check_passwords(town)
        _time_keys(ledger)
        case = Case(ledger, end, seen)
        findings = judge(case)
        findings += [f"invariant: {line}" for line in invariants.find_violations(stack.system.connect)]
        return Result(seed, seconds, performed, kinds, case, findings, _find_lines(stack, findings))


def _perform(stack: ChaosStack, ledger: Ledger, act: Act, kinds: Mapping[str, Kind]) -> bool:
    """Perform one act, or two at once, and measure how long the system takes to recover. Returns whether it does."""
    window = Window(str(act), time.time())
    ledger.windows.append(window)
    nemesis.perform(stack, act, kinds)
    if not wait_for(stack.is_healthy, HEALTHY_SECONDS):
        return False
    restored = time.time()
    wait_for(lambda: _has_no_older_saga(stack, restored), HEALTHY_SECONDS)
    window.saga_seconds = time.time() - restored
    window.restored = restored
    return True


def _has_no_older_saga(stack: ChaosStack, began_before: float) -> bool:
    """Whether no saga runs that began before a time. False if the server ends the session, which a failover does."""
    try:
        return not stack.system.rows("sagas_db", OLDER_SAGAS, began_before)[0]["number"]
    except psycopg2.OperationalError:
        return False


def _settle(stack: ChaosStack, town: Town, event: str) -> end_state.EndState:
    """Let every hold expire, wait until nothing is left to do, and read the end state."""
    ledger = town.ledger

    def read() -> end_state.EndState:
        return end_state.read(stack.system.rows, event)

    def is_idle() -> bool:
        state = read()
        held = any(seat.status == "HELD" for seat in state.seats.values())
        pending = any(order.status == "PENDING" for order in state.orders.values())
        verified = stack.system.rows("orders_db", VERIFIED)[0]["number"]  # the orchestrator completes these by itself
        is_busy = state.sagas["RUNNING"] or state.unsent_notices or verified or _unpaid(ledger, state)
        return not (held or pending or is_busy)

    ahead = 2 * HOLD_SECONDS
    with stack.system.clock("seats_db", ahead), stack.system.clock("orders_db", ahead):
        deadline = time.monotonic() + IDLE_SECONDS
        while not is_idle() and time.monotonic() < deadline:
            time.sleep(0.25)
    for customer, sale in town.open_sales:
        town.renew(customer)
        read_sale(ledger, customer, sale)
    for party, resale in town.open_resales:
        town.renew(party)
        read_resale(party, resale)
    queued = stack.queued_messages()  # before the read, because a message can be consumed meanwhile
    end = read()
    end.hold_messages |= queued
    end.parked_messages = stack.parked_messages()
    late = time.time() - HOLD_SECONDS
    end.overdue_messages = {key for key in queued if key in ledger.sales and ledger.sales[key].held_until < late}
    return end


def _unpaid(ledger: Ledger, state: end_state.EndState) -> bool:
    """Whether Stripe still has to report a payment."""
    return not ledger.payments.keys() <= state.payments.keys()


def check_logouts(town: Town) -> None:
    """The gateway must refuse the tokens of people who have logged out."""
    for token in town.ended_tokens[-SHOWN:]:
        answer = town.staff.call("GET", "/api/credits/balance", token=token)
        if answer.status != 401:
            town.ledger.open_sessions.append(f"a token got {answer.status} after the logout")


def check_passwords(town: Town) -> None:
    """A login must accept the last password of an account, unless staff have locked it."""
    ledger, visitor = town.ledger, replace(town.staff, token=None)
    for email, password in list(ledger.passwords.items())[-SHOWN:]:
        answer = visitor.call("POST", "/api/auth/login", {"email": email, "password": password})
        expected = 403 if ledger.locks.get(ledger.accounts.get(email, "")) else 200
        if answer.status != expected:
            ledger.refused_logins.append(f"{email} got {answer.status} {answer.error_code}, expected {expected}")


def _time_keys(ledger: Ledger) -> None:
    """Set how long keys of requests from before the end of an act were still taken."""
    ends = [*(window.began for window in ledger.windows), float("inf")][1:]
    for window, end in zip(ledger.windows, ends, strict=True):
        late = [at - window.restored for first, at in ledger.busy if first < window.restored < at < end]
        window.key_seconds = max(late, default=0.0)


def find_tracebacks(stack: ChaosStack) -> list[str]:
    """Return the tracebacks in log lines of the services, and those that a process printed."""
    found: list[str] = []
    for name in (*stack.services, GATEWAY, *FAKES):
        lines = iter(stack.stack.log_path(name).read_text(encoding="utf-8", errors="replace").splitlines())
        for text in lines:
            if "exception" in text and (line := _parse(text)):
                found.append(f"{name}: {line['message']} {line.get('exception', '')[-400:]}")
            elif text.startswith(PRINTED):
                found.append(f"{name}: {next((line for line in lines if not line.startswith(' ')), text)}")
            elif PRINTED in text:  # a log line of a fake
                found.append(f"{name}: {text[-400:]}")
    return found


def _parse(text: str) -> Any:
    """Return a log line about an exception, or None for others. A kill can cut a line."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if line.get("exception") or line["message"].startswith("unhandled") else None


def _find_lines(stack: ChaosStack, findings: Sequence[str]) -> list[str]:
    """Return log lines that name an id of the first findings."""
    ids = {found for finding in shorten(findings) for found in UUID.findall(finding)}
    lines: list[str] = []
    for service in stack.services:
        with stack.stack.log_path(service).open(encoding="utf-8", errors="replace") as log:
            lines += [line.rstrip() for line in log if any(each in line for each in ids)]
    return sorted(lines, key=lambda line: line[line.find("timestamp") :])[:SHOWN] if ids else []


# ── the report


def write_report(result: Result, reports: Path = REPORTS) -> None:
    """Write chaos.json and the timeline to the folder of the report."""
    reports.mkdir(exist_ok=True)
    (reports / "chaos.json").write_text(json.dumps(summarize(result), indent=1, ensure_ascii=False) + "\n")
    (reports / "chaos-timeline.svg").write_text(draw(result))


def summarize(result: Result) -> dict[str, Any]:
    """Return the figures of a run."""
    ledger = result.case.ledger
    calls, first = ledger.calls, ledger.calls[0].at
    seconds = sorted(call.seconds for call in calls)
    return {
        "seed": result.seed,
        "seconds": result.seconds,
        "requests": len(calls),
        "statuses": {str(status): number for status, number in sorted(Counter(call.status for call in calls).items())},
        "p50_ms": round(seconds[len(seconds) // 2] * 1000, 1),
        "p99_ms": round(seconds[int(len(seconds) * 0.99)] * 1000, 1),
        "facts": {
            "orders": len(ledger.sales),
            "sales": sum(sale.status == "CONFIRMED" for sale in ledger.sales.values()),
            "transfers": len(ledger.resales),
            "payments": len(ledger.payments),
            "admissions": len(ledger.admissions),
            "accounts": len(ledger.accounts),
            "commands": len(ledger.commands),
            "logouts": len(ledger.logouts),
        },
        "acts": [
            {
                "act": window.act,
                "at": round(window.began - first, 1),
                "restored_after": round(window.restored - window.began, 1),
                "saga_seconds": round(window.saga_seconds, 2),
                "key_seconds": round(window.key_seconds, 2),
            }
            for window in ledger.windows
        ],
        "counts": {kind: sum(part.kind == kind for act in result.acts for part in act.parts) for kind in result.kinds},
        "not_run": nemesis.NOT_RUN,
        "growth": {figure.what: [figure.before, figure.after] for figure in result.case.seen.growth},
        "findings": result.findings,
    }


def draw(result: Result) -> str:
    """Draw the rate, the failures and the slowest answer of each second, with the beginning of each act."""
    calls = result.case.ledger.calls
    first = calls[0].at
    length = int((max(call.at for call in calls) - first) / STEP_SECONDS) + 1
    steps: list[list[Call]] = [[] for _ in range(length)]
    for call in calls:
        steps[min(int((call.at - first) / STEP_SECONDS), length - 1)].append(call)
    series: dict[str, list[float]] = {
        "requests in a second": [len(step) for step in steps],
        "without an answer or with 5xx": [
            sum(call.status >= 500 or not call.status for call in step) for step in steps
        ],
        "slowest answer, in 10 ms": [max((call.seconds for call in step), default=0.0) * 100 for step in steps],
    }
    marks = [(window.began - first, window.act) for window in result.case.ledger.windows]
    return charts.over_time(f"Load and acts of seed {result.seed}", STEP_SECONDS, series, marks)
