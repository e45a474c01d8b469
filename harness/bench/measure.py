"""The figures of the bench: rates relative to the SQL baseline, and CPU relative to the empty route."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from harness.bench import sql_baseline
from harness.bench.empty_route import EmptyRoute
from harness.bench.load_generator import CLIENTS, Load
from harness.bench.meter import NetMeter, measure_idle, open_meter
from harness.bench.runs import GRPC_CLIENTS, Run, Runs
from harness.bench.system import find_processes
from harness.errors import StackError


@dataclass(frozen=True)
class Rate:
    """One kind of work in several rounds, each with the holds per second of its SQL baseline.

    `shares` has the rate of each round as a share of the mean over all kinds in the same round.
    """

    loads: Sequence[Load]
    baselines: Sequence[float]
    shares: Sequence[float]

    @property
    def relatives(self) -> list[float]:
        """The rate of each round as a share of the SQL baseline."""
        return [load.rate / baseline for load, baseline in zip(self.loads, self.baselines, strict=True)]

    @property
    def load(self) -> Load:
        """The run with the median rate."""
        return sorted(self.loads, key=lambda load: load.rate)[len(self.loads) // 2]


@dataclass(frozen=True)
class Cost:
    """The CPU cost of one kind of work in several rounds, each with the cost of an empty route."""

    loads: Sequence[Load]
    empty_routes: Sequence[float]
    unit: str
    scale: str

    @property
    def relatives(self) -> list[float]:
        """The cost of each round as a multiple of the empty route."""
        return [load.cost / route for load, route in zip(self.loads, self.empty_routes, strict=True)]

    @property
    def load(self) -> Load:
        """The run with the median cost."""
        return sorted(self.loads, key=lambda load: load.cost)[len(self.loads) // 2]

    @property
    def empty_route(self) -> float:
        """The mean cost of an empty route."""
        return mean(self.empty_routes)


@dataclass(frozen=True)
class Bench:
    """Repeats runs in `rounds`, in which all kinds of work take turns.

    The SQL baseline is measured for one second before and after each run, because other load on the machine varies.
    """

    runs: Runs
    empty_route: EmptyRoute
    rounds: int

    def measure_rate(self, create_run: Callable[[Runs], Run], clients: int = CLIENTS) -> Rate:
        """Measure the rate of one kind of work. The baseline has as many clients."""
        (rate,) = self.measure_rates([create_run], clients)
        return rate

    def measure_reserve_seat(self, processes: int = 1) -> Rate:
        """Measure `ReserveSeat` calls to so many processes of Inventory."""
        return self.measure_rate(lambda runs: runs.reserve_seat(processes), GRPC_CLIENTS)

    def measure_rates(self, kinds: Sequence[Callable[[Runs], Run]], clients: int = CLIENTS) -> list[Rate]:
        """Measure the rate of each kind of work. The data of all rounds is inserted before the first one."""
        rounds = [[create_run(self.runs) for create_run in kinds] for _ in range(self.rounds)]
        before = self._measure_baseline(clients)
        results: list[list[tuple[Load, float]]] = []
        for turn in rounds:
            results.append([])
            for run in turn:
                load, after = run(), self._measure_baseline(clients)
                results[-1].append((load, (before + after) / 2))
                before = after
        return [summarize(results, kind) for kind in range(len(kinds))]

    def measure_cost(self, create_run: Callable[[Runs], Run], is_complete: bool = False) -> Cost:
        """Measure the CPU of one kind of work in separate runs, because counting instructions slows the processes.

        With `is_complete`, notices and wake-up messages count. Raises StackError.
        """
        with open_meter(find_processes(self.runs.system)) as meter:
            net = NetMeter(meter, measure_idle(meter)) if is_complete else meter
            runs = replace(self.runs, meter=net, is_complete=is_complete)
            loads, empty_routes = [], []
            for _ in range(self.rounds):
                run = create_run(runs)
                empty_route, unit = self.empty_route.measure_cost()
                if unit != meter.unit:
                    raise StackError(f"empty route measured in {unit}, the system in {meter.unit}: run the bench again")
                empty_routes.append(empty_route)
                loads.append(run())
        return Cost(loads, empty_routes, meter.unit, meter.scale)

    def measure_event_cost(self) -> Cost:
        """Measure the CPU of GET /api/events/{id} with 1,000 seats, while a seat changes ten times a second."""
        with self.runs.changing_event() as event:
            return self.measure_cost(lambda runs: runs.read_event(event))

    def measure_hot_seat(self) -> list[tuple[Load, Load]]:
        """Return the loads of 100 concurrent reserves of one seat, and of a single client, of each round."""
        return [self.runs.try_hot_seat() for _ in range(self.rounds)]

    def measure_losers(self) -> list[tuple[float, float]]:
        """Return the p99 of losers under NOWAIT and FOR UPDATE of each round, in seconds."""
        return [self.runs.lose_to_a_lock() for _ in range(self.rounds)]

    def _measure_baseline(self, clients: int) -> float:
        return sql_baseline.measure_rate(self.runs.system, self.runs.fixtures.rows, clients)


def summarize(rounds: Sequence[Sequence[tuple[Load, float]]], kind: int) -> Rate:
    """Summarize the runs of one kind. Each round has one run of every kind, with its SQL baseline."""
    shares = [turn[kind][0].rate / mean(load.rate for load, _ in turn) for turn in rounds]
    return Rate([turn[kind][0] for turn in rounds], [turn[kind][1] for turn in rounds], shares)
