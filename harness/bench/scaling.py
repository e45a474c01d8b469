"""The rows about replicas, and the figures of docs/scaling-figures.md.

A queueing model predicts the purchases per second of one and of two orchestrators, and runs check the prediction.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import Any

from harness.bench.journals import measure_saturation
from harness.bench.load_generator import CLIENTS, Load
from harness.bench.measure import Bench, Cost
from harness.bench.meter import CpuTimeMeter, NetMeter, measure_idle
from harness.bench.queueing import predict_rate_on_cores
from harness.bench.rows import MIDDLE
from harness.bench.system import EVENT, ORCHESTRATOR, find_processes
from harness.bench.verdict import CPU_TIME, RATE, Row, at_least, at_most

REPLICAS = (1, 2)
MANY_CORES = 64  # so that each process has one


@dataclass(frozen=True)
class ReplicaRound:
    """One client alone, and 16 clients at one and at two orchestrators, with the CPU of all programs on the machine."""

    alone: Load
    loads: Mapping[int, Load]

    def predict(self, orchestrators: int, cores: int) -> float:
        """Return the purchases per second that the model expects of 16 clients at so many orchestrators."""
        used = {name: amount / 1000 for name, amount in self.loads[1].used.items()}
        services = {name: seconds for name, seconds in used.items() if "-service" in name}
        orchestrator = sum(seconds for name, seconds in services.items() if name.startswith(ORCHESTRATOR))
        stations = [seconds for name, seconds in services.items() if not name.startswith(ORCHESTRATOR)]
        stations += [orchestrator / orchestrators] * orchestrators
        waiting = max(0.0, mean(self.alone.latencies) - self.alone.cost / 1000)
        return predict_rate_on_cores(stations, sum(used.values()) - sum(services.values()), waiting, CLIENTS, cores)


def measure_replicas(bench: Bench) -> list[ReplicaRound]:
    """Measure purchases at one and at two orchestrators, which both run."""
    everything = find_processes(bench.runs.system, but=("epmd",)) | bench.runs.load_generator.processes()
    meter = CpuTimeMeter(everything)
    runs = replace(bench.runs, meter=NetMeter(meter, measure_idle(meter)))
    return [
        ReplicaRound(
            runs.purchase(MIDDLE, clients=1)(),
            {number: runs.purchase(MIDDLE, orchestrators=number)() for number in REPLICAS},
        )
        for _ in range(bench.rounds)
    ]


def build_replica_rows(rounds: list[ReplicaRound], cores: int) -> list[Row]:
    """Build the rows about the gain of the second orchestrator and the errors of the predictions."""
    gains = [found.loads[2].rate / found.loads[1].rate for found in rounds]
    rates = {number: median(found.loads[number].rate for found in rounds) for number in REPLICAS}
    served_by = {number: rounds[0].loads[number].served_by for number in REPLICAS}
    raw = f"{rates[2]:.0f} ÷ {rates[1]:.0f}/s on {cores} cores"
    rows = [Row("reserve + pay, two orchestrators ÷ one", gains, RATE, served_by[2], at_least(0.8, 1), raw)]
    for number in REPLICAS:
        pairs = [(found.predict(number, cores), found.loads[number].rate) for found in rounds]
        errors = [max(predicted, measured) / min(predicted, measured) for predicted, measured in pairs]
        raw = f"predicted {median(predicted for predicted, _ in pairs):.0f}, measured {rates[number]:.0f}/s"
        name = f"model and run, {number} orchestrator{'s' * (number > 1)}: larger ÷ smaller"
        rows.append(Row(name, errors, RATE, served_by[number], at_most(1.25, 1.1), raw))
    return rows


def collect_figures(bench: Bench, rounds: list[ReplicaRound], event_page: Cost) -> dict[str, Any]:
    """Return the figures of docs/scaling-figures.md: `one_process`, `sagas_db` and `orchestrators`."""
    meter = CpuTimeMeter(find_processes(bench.runs.system))
    complete = replace(bench.runs, meter=NetMeter(meter, measure_idle(meter)), is_complete=True)
    purchase = complete.purchase(MIDDLE)()
    services = {name: amount for name, amount in purchase.used.items() if name.endswith("-service") and amount > 0.5}
    cores = os.cpu_count() or 1
    return {
        "one_process": {name: round(1000 / amount) for name, amount in services.items()},
        "event_pages": round(1000 / event_page.load.used[EVENT]) if event_page.unit == CPU_TIME else None,
        "machine": round(1000 * cores / purchase.cost),
        "sagas_db": round(median(measure_saturation(bench.runs.system))),
        "orchestrators": {
            str(number): {
                "predicted": round(median(found.predict(number, cores) for found in rounds)),
                "with_many_cores": round(median(found.predict(number, MANY_CORES) for found in rounds)),
                "measured": round(median(found.loads[number].rate for found in rounds)),
            }
            for number in REPLICAS
        },
    }
