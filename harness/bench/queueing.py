"""A queueing model of the system: mean value analysis of a closed network, on a machine with few cores.

A fixed number of clients visits each station in turn. A Python process is a station that serves one request at a time,
because only one of its threads runs Python code. Its service time is its CPU time per request.
"""

from __future__ import annotations

from collections.abc import Sequence


def predict_rate(stations: Sequence[float], delay: float, clients: int) -> float:
    """Return the requests per second of so many clients, by exact mean value analysis.

    `stations` are the seconds of service per request at each station with a queue. `delay` is the time per request
    without a queue, also in seconds.
    """
    queues = [0.0] * len(stations)
    rate = 0.0
    for number in range(1, clients + 1):
        times = [service * (1 + queue) for service, queue in zip(stations, queues, strict=True)]
        rate = number / (delay + sum(times))
        queues = [rate * time for time in times]
    return rate


def predict_rate_on_cores(
    stations: Sequence[float], parallel: float, waiting: float, clients: int, cores: int
) -> float:
    """Return the requests per second on a machine whose cores all programs share.

    `parallel` is the CPU time per request of programs with many processes, such as PostgreSQL and the load generator.
    `waiting` is the time per request without CPU use, such as a wait for the disk. The rate is the lower one of two
    networks. One has a queue for each process, and as many cores as needed. The other has one queue of all work for the
    `cores`. A station with several servers is approximated by a faster one and a delay (Seidmann).
    """
    work = sum(stations) + parallel
    of_processes = predict_rate(stations, parallel + waiting, clients)
    of_cores = predict_rate([work / cores], waiting + work * (cores - 1) / cores, clients)
    return min(of_processes, of_cores)
