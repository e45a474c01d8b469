"""Worker processes, each with an in-process system of its own: PostgreSQL, services and orchestrators."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

from services.chassis.settings import BrokerSettings
from tests.saga.in_process.engine import Engine, fast_retries
from tests.saga.in_process.hold_messages import HoldMessageBroker
from tests.saga.in_process.in_process_system import InProcessSystem
from tests.support.databases import Databases

Item = TypeVar("Item")
Output = TypeVar("Output")

_engine: Engine | None = None


def count_workers() -> int:
    """One worker per core, but at most four, because each has a PostgreSQL."""
    return min(len(os.sched_getaffinity(0)), 4)


def map_in_processes(work: Callable[[Item], Output], items: Sequence[Item]) -> dict[Item, Output]:
    """Call `work` with each item in the worker processes, and return the results by item."""
    with open_pool(min(count_workers(), len(items))) as pool:
        return dict(zip(items, pool.map(work, items), strict=True))


def open_pool(count: int, broker: BrokerSettings | None = None) -> ProcessPoolExecutor:
    """Start worker processes. With `broker`, they publish to that RabbitMQ."""
    return ProcessPoolExecutor(count, get_context("spawn"), _open_system, (broker,))


def engine() -> Engine:
    """The engine of this worker process."""
    assert _engine is not None, "call this in a worker process"
    return _engine


def _open_system(broker: BrokerSettings | None) -> None:
    global _engine  # noqa: PLW0603 - one system per worker process, opened when it starts
    logging.disable(logging.CRITICAL)
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    databases = stack.enter_context(contextlib.closing(Databases()))
    system = stack.enter_context(contextlib.closing(InProcessSystem(databases)))
    real_broker = None
    if broker is not None:
        real_broker = stack.enter_context(contextlib.closing(HoldMessageBroker(broker, system.dbs["inventory"])))
    _engine = stack.enter_context(fast_retries(Engine(system, real_broker)))
    threading.Thread(target=_end_with_parent, args=(databases,), daemon=True).start()


def _end_with_parent(databases: Databases) -> None:
    """End this process and its PostgreSQL when the session is killed, because the pool cannot end them then."""
    parent = parent_process()
    assert parent
    wait([parent.sentinel])
    databases.close()
    os._exit(1)
