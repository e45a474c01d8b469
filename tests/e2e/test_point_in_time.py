"""A base backup and the archive of the write-ahead log (WAL) restore all five databases to one point in time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness import Stack, runtime
from harness.runtime.cleanup import take_down
from harness.runtime.cluster import GROUPS
from tests.ha.cluster import cluster_only
from tests.support.people import Person
from tests.support.running_stack import UNLIMITED, SeatPool, native_only
from tests.support.system import TestSystem
from tests.support.waiting import WAIT_SECONDS

pytestmark = [pytest.mark.e2e, native_only("each database container has a backup of its own")]

PARTS = ("api-gateway", "fake-smu", "fake-stripe")  # with their dependencies, which are the services
HOLD_SECONDS = {"native": "20", "ha": "60"}  # the holds outlive their stack
LOST = {"native": ("postgres",), "ha": ("postgres", "etcd")}  # by kind of stack, the folders of its servers
CLUSTER = (pytest.mark.deep, cluster_only)
OTHER_KINDS = [("ha", "ha"), ("ha", "native"), ("native", "ha")]
KINDS = [("native", "native"), *(pytest.param(*kinds, marks=CLUSTER) for kinds in OTHER_KINDS)]
ARCHIVED = "SELECT last_archived_wal >= %s AS is_archived FROM pg_stat_archiver"


@contextmanager
def running(run_dir: Path, kind: str, **env: str) -> Iterator[Stack]:
    variables = {**UNLIMITED, "HOLD_TTL_SECONDS": HOLD_SECONDS[kind], **env}
    with runtime.up(run_dir, env=variables, only=PARTS, quiet=True, wanted=kind) as stack:
        yield stack
        take_down(stack.run_dir)  # a clean stop takes seconds


def run_harness(run_dir: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "harness", "--run-dir", str(run_dir), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def reconcile(stack: Stack) -> tuple[int, str]:
    """Run the operator's command without a margin, as on the machine of the orchestrator."""
    command = [sys.executable, "-m", "services.orchestrator.admin", "reconcile", "--margin", "0"]
    environment = {"PATH": os.environ["PATH"], **stack.env("orchestrator-service")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def archive_everything(system: TestSystem) -> None:
    """Wait until the archive has the segment that is written now."""
    [row] = system.rows("postgres", "SELECT pg_walfile_name(pg_switch_wal()) AS segment")
    system.wait_until(
        "the log is archived", lambda: system.rows("postgres", ARCHIVED, row["segment"])[0]["is_archived"]
    )


def pay_across(system: TestSystem, buyer: Person, order_id: str) -> str:
    """Pay an order, and return a moment at which this saga was running."""
    with closing(system.connect("users_db")) as users_db, ThreadPoolExecutor(1) as pool:
        users_db.autocommit = False
        users_db.cursor().execute("SELECT 1 FROM users WHERE user_id = %s FOR UPDATE", (buyer.user_id,))
        paying = pool.submit(buyer.pay, order_id)
        running = "SELECT clock_timestamp()::text AS now FROM sagas WHERE subject = %s AND status = 'RUNNING'"
        [row] = system.wait_until("the pay runs", lambda: system.rows("sagas_db", running, order_id))
        users_db.rollback()
        paying.result().must(200)
    return str(row["now"])


def trade(system: TestSystem, seller: Person, buyer: Person) -> None:
    """Buy a seat and sell its ticket on."""
    seat, _ = system.buy_seat(seller)
    system.complete_transfer(seller, buyer, seat)


def assert_reconcile_finds_nothing_under_load(system: TestSystem) -> None:
    """Run the command again and again while users trade."""
    with ThreadPoolExecutor(4) as pool:
        trades = [pool.submit(trade, system, *system.people(2, "5000.00")) for _ in range(8)]
        found = [reconcile(system.stack)]
        while not all(each.done() for each in trades):
            found.append(reconcile(system.stack))
        for each in trades:
            each.result()
    assert {*found} == {(0, "")}


def assert_cluster_is_as_before(system: TestSystem) -> None:
    """Check that commits wait for followers, and that no node returns to the old moment."""
    assert system.rows("postgres", "SHOW synchronous_standby_names") != [{"synchronous_standby_names": ""}]
    servers = system.stack.run_dir.path / "postgres"
    settings = [path.read_text() for path in servers.glob("*/data/postgresql.auto.conf")]
    assert len(settings) == len(GROUPS["postgres"])
    assert not any("recovery_target" in text for text in settings)
    assert not (servers / "data").exists()


def saga_of(system: TestSystem, order_id: str) -> dict[str, Any] | None:
    found = system.rows("sagas_db", "SELECT * FROM sagas WHERE flow = 'pay' AND subject = %s", order_id)
    return found[0] if found else None


@pytest.mark.parametrize(("kind", "restored"), KINDS)
def test_restored_system_has_exactly_the_sales_before_the_moment(tmp_path: Path, kind: str, restored: str) -> None:
    """The broker of the same kind keeps the messages of holds that were lost.

    A saga that ran at the moment is undone by recovery.
    """
    run_dir, folder, pool = tmp_path / "run", tmp_path / "backup", SeatPool()
    with running(run_dir, kind, WAL_ARCHIVE=str(folder / "wal")) as stack:
        system = TestSystem(stack, pool)
        buyer, other = system.people(2, "5000.00")
        kept = [system.buy_seat(buyer)]
        run_harness(run_dir, "backup", str(folder))
        kept.append(system.buy_seat(buyer))
        _, undone = system.hold_seat(other)
        moment = pay_across(system, other, undone)
        lost = [system.buy_seat(buyer), system.buy_seat(buyer)]
        assert reconcile(stack) == (0, "")
        archive_everything(system)
    for name in LOST[kind]:
        (run_dir / name).rename(tmp_path / f"lost {name}")
    run_harness(run_dir, "restore", str(folder), "--at", moment)
    with running(run_dir, restored) as stack:
        system = TestSystem(stack, pool)
        buyer.url = other.url = stack.url("api-gateway")  # a new start may take other ports
        assert [system.order_status(order_id) for _, order_id in kept] == ["CONFIRMED", "CONFIRMED"]
        assert [system.order_status(order_id) for _, order_id in lost] == ["none", "none"]
        system.wait_until("recovery ends the saga", lambda: (saga_of(system, undone) or {})["status"] == "UNDONE")
        assert (system.order_status(undone), system.credits(other)) == ("FAILED", (5000, 0))
        assert {order["order_id"] for order in buyer.get("/api/orders").must(200)} == {order for _, order in kept}
        assert system.buy_seat(other, lost[0][0])[0] == lost[0][0]
        ids = [order_id for _, order_id in lost] if kind == restored else []
        stale = "SELECT 1 FROM release_messages WHERE message_id = %s AND outcome = 'STALE'"
        for order_id in ids:
            consumed = partial(system.rows, "seats_db", stale, order_id)
            system.wait_until("the old message is consumed", consumed, float(HOLD_SECONDS[kind]) + WAIT_SECONDS)
        assert (system.seat_status(lost[0][0]), system.seat_status(lost[1][0])) == ("SOLD", "AVAILABLE")
        assert_reconcile_finds_nothing_under_load(system)
        if restored == "ha":
            assert_cluster_is_as_before(system)
        system.assert_invariants()
