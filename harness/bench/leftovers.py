"""The work that responses leave behind: notices in the outbox, and the wake-up message of each hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import pika
import psycopg2

from harness.bench.meter import CpuTimeMeter
from harness.bench.system import System, find_processes
from harness.errors import StackError
from harness.runtime.process import wait_for

HOLD_SECONDS = 4  # of each hold in the bench, so that the wake-up messages arrive within a measurement
LIMIT_SECONDS = 60.0
QUIET_SECONDS, QUIET_MS = 0.3, 30.0  # a process that uses less CPU time than this handles no messages
QUEUES = ("seat.hold.queue", "seat.release.queue", "seat.release.delay.queue")
INVENTORY = "inventory-service"

_DUE = "SELECT notice_id FROM outbox WHERE sent_at IS NULL AND given_up_at IS NULL LIMIT 1"
_POSTPONE = {
    "seats_db": """UPDATE seats SET held_until = held_until + interval '1 day'
        WHERE status = 'HELD' AND held_until < app_now() + interval '1 hour'""",
    "orders_db": """UPDATE orders SET expires_at = expires_at + interval '1 day'
        WHERE status = 'PENDING' AND expires_at < app_now() + interval '1 hour'""",
}


class Leftovers:
    """Waits for the work that the responses of a system have left behind, or prevents it."""

    def __init__(self, system: System) -> None:
        self._system = system

    def wait_for_notices(self) -> None:
        """Return when the outbox is empty. Raises StackError after LIMIT_SECONDS."""
        with closing(psycopg2.connect(self._system.admin_dsn("sagas_db"))) as connection, connection.cursor() as cursor:
            connection.autocommit = True

            def is_outbox_empty() -> bool:
                cursor.execute(_DUE)
                return cursor.fetchone() is None

            self._wait(is_outbox_empty, "the outbox of the orchestrator is not empty")

    def wait_for_all(self) -> None:
        """Return after the last notice and the last wake-up message. Raises StackError after LIMIT_SECONDS."""
        self.wait_for_notices()
        with closing(pika.BlockingConnection(pika.URLParameters(self._system.url("rabbitmq")))) as connection:
            channel = connection.channel()

            def are_queues_empty() -> bool:
                return not any(channel.queue_declare(queue, passive=True).method.message_count for queue in QUEUES)

            self._wait(are_queues_empty, "the queues of wake-up messages are not empty")
        # RabbitMQ counts no message that a consumer has received but not acknowledged.
        self._wait(self._is_inventory_quiet, "Inventory is not idle")

    def prevent_expiry(self) -> None:
        """Postpone all holds and drop their wake-up messages, so that their end disturbs no later measurement."""
        for database, statement in _POSTPONE.items():
            with closing(psycopg2.connect(self._system.admin_dsn(database))) as connection:
                connection.autocommit = True
                connection.cursor().execute(statement)
        with closing(pika.BlockingConnection(pika.URLParameters(self._system.url("rabbitmq")))) as connection:
            for queue in QUEUES:
                connection.channel().queue_purge(queue)

    def _is_inventory_quiet(self) -> bool:
        processes = find_processes(self._system)
        meter = CpuTimeMeter({name: process for name, process in processes.items() if name.startswith(INVENTORY)})
        before = meter.reading()
        time.sleep(QUIET_SECONDS)  # the interval of the measurement
        after = meter.reading()
        return all(after[name] - before[name] < QUIET_MS for name in after)

    def _wait(self, condition: Callable[[], bool], problem: str) -> None:
        if not wait_for(condition, LIMIT_SECONDS):
            raise StackError(f"{problem} after {LIMIT_SECONDS:.0f} s. See the logs in {self._system.run_dir.logs}.")
