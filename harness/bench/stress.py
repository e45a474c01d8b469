"""The rows of a busy system: a mixed sale, a flood of logins, and a slow SMU (the notification API)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from urllib.request import Request, urlopen

from harness.bench.load import REPEAT
from harness.bench.load_generator import CLIENTS, Load, LoadGenerator
from harness.bench.measure import Bench
from harness.bench.meter import CpuTimeMeter
from harness.bench.rows import MIDDLE, show_latencies
from harness.bench.runs import Run, Runs
from harness.bench.system import USER, System, find_processes, join_addresses
from harness.bench.verdict import RATE, TIME, Row, at_least, at_most
from harness.runtime.process import wait_for

LOGINS = [[f"nobody{number}@bench.example", "a wrong password"] for number in range(20_000)]
LOGIN_INTERVAL = 0.25  # of each client, so 16 clients send 64 logins a second, at most one for an account
FLOOD_SECONDS = 3.0  # so that a run has several hundred purchases, as a p99 needs
SMU, SMU_MS = "fake-smu", 200
NOTICES, NOTICE_SECONDS, NOTICE_ROUNDS = 1000, 4.0, 3

_INSERT = """
INSERT INTO outbox (saga_id, user_id, message, fields)
SELECT saga_id, (%(buyers)s::uuid[])[1 + row_number() OVER () %% %(number)s], 'booking_confirmed', '{}'
FROM (SELECT saga_id FROM sagas WHERE NOT EXISTS (SELECT FROM outbox WHERE outbox.saga_id = sagas.saga_id)
      LIMIT %(notices)s) AS without_notice
RETURNING notice_id"""
# The first batch opens the window, so its notices do not count.
_RATE = """
WITH began AS (SELECT min(sent_at) AS at FROM outbox WHERE notice_id >= %(first)s)
SELECT count(*) / %(seconds)s FROM outbox, began WHERE notice_id >= %(first)s
    AND sent_at > began.at AND sent_at <= began.at + %(seconds)s * interval '1 second'"""
_IS_OVER = """
SELECT min(sent_at) < clock_timestamp() - %(seconds)s * interval '1 second' FROM outbox WHERE notice_id >= %(first)s"""
_GIVE_UP = "UPDATE outbox SET given_up_at = clock_timestamp() WHERE sent_at IS NULL AND given_up_at IS NULL"


def measure_mixed_sale(bench: Bench) -> Row:
    """Measure visitors that read an event, buy a ticket, and read their balance and QR code, through the gateway."""
    rate = bench.measure_rate(partial(Runs.visit, event_size=MIDDLE))
    name = "mixed sale through the gateway ÷ SQL baseline"
    return Row(name, rate.relatives, RATE, rate.load.served_by, at_least(0.007, 0.014), show_latencies(rate.load))


def measure_login_flood(bench: Bench) -> Iterator[Row]:
    """Measure balances and purchases of 16 clients while others send 64 logins a second with wrong passwords.

    A single client would measure the kernel's tick: a request that wakes up during a hash can wait for 4 ms.
    """
    runs = replace(bench.runs, seconds=FLOOD_SECONDS)
    kinds: dict[str, Callable[[Runs], Run]] = {
        "balance": Runs.read_balance,
        "reserve + pay": partial(Runs.purchase, event_size=MIDDLE),
    }
    with LoadGenerator() as flood:
        for name, create_run in kinds.items():
            pairs = [_run_alone_and_flooded(runs, create_run, flood) for _ in range(bench.rounds)]
            ratios = [flooded.percentile(0.99) / alone.percentile(0.99) for alone, flooded, _ in pairs]
            alone, flooded, logins = pairs[-1]
            times = f"{flooded.percentile(0.99) * 1e3:.1f} ÷ {alone.percentile(0.99) * 1e3:.1f} ms"
            raw, served_by = f"{times}, {logins.rate:.0f} logins/s", alone.served_by
            yield Row(f"p99 of {name} under a flood of logins ÷ alone", ratios, TIME, served_by, at_most(3, 2), raw)


def _run_alone_and_flooded(
    runs: Runs, create_run: Callable[[Runs], Run], flood: LoadGenerator
) -> tuple[Load, Load, Load]:
    alone, second = create_run(runs)(), create_run(runs)
    send_logins = partial(
        flood.run,
        join_addresses(runs.system, USER),
        "login",
        LOGINS,
        meter=CpuTimeMeter(find_processes(runs.system)),
        clients=CLIENTS,
        seconds=runs.seconds,
        mode=REPEAT,
        interval=LOGIN_INTERVAL,
    )
    with ThreadPoolExecutor(1) as pool:
        logins = pool.submit(send_logins)
        flooded = second()
        return alone, flooded, logins.result()


def measure_outbox(bench: Bench) -> Row:
    """Measure the notices per second of one orchestrator, while each call of SMU takes 200 ms.

    The waits decide this rate and not the machine, so it is compared as it is.
    """
    system = bench.runs.system
    with _slow_smu(system):
        rates = [_measure_notices(bench.runs) for _ in range(NOTICE_ROUNDS)]
    return Row("notices/s with an SMU of 200 ms", rates, RATE, 2, at_least(60, 80))


def _measure_notices(runs: Runs) -> float:
    with closing(runs.fixtures.connect("sagas_db")) as connection, connection.cursor() as cursor:
        buyers = runs.fixtures.buyers
        cursor.execute(_INSERT, {"buyers": buyers, "number": len(buyers), "notices": NOTICES})
        window = {"first": min(row[0] for row in cursor.fetchall()), "seconds": NOTICE_SECONDS}

        def is_over() -> bool:
            cursor.execute(_IS_OVER, window)
            return bool(cursor.fetchone()[0])

        wait_for(is_over, 5 * NOTICE_SECONDS)
        cursor.execute(_RATE, window)
        rate = float(cursor.fetchone()[0])
        cursor.execute(_GIVE_UP)
        return rate


@contextmanager
def _slow_smu(system: System) -> Iterator[None]:
    """Delay each response of the fake SMU by 200 ms."""
    url = f"{system.url(SMU)}/_control/faults"
    fault = json.dumps({"kind": "late", "path": "*", "ms": SMU_MS, "count": 0}).encode()
    headers = {"Content-Type": "application/json"}
    urlopen(Request(url, fault, headers), timeout=5).close()  # noqa: S310 - the address of our own fake
    try:
        yield
    finally:
        urlopen(Request(url, method="DELETE"), timeout=5).close()  # noqa: S310
