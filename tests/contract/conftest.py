"""Fixtures of the contract suite: a running stack, and the exchanges that all scenarios made with it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context

import pytest

from harness import Stack
from harness.dev.spec_bundle import SERVED, bundle
from tests.claims.memory import return_free_memory
from tests.contract import fault_answers, internal, scenarios
from tests.contract.credentials import CUSTOMER, STAFF, Credentials
from tests.contract.exchanges import Contract, Exchange, RecordingPool
from tests.contract.fuzzing import Outcome, fuzz
from tests.contract.probes import Prober, list_operations
from tests.support.running_stack import SeatPool, running
from tests.support.system import TestSystem

PROGRAMS = {"gateway": "api-gateway", "smu": "fake-smu", "stripe": "fake-stripe"}
PROCESSES = 2
RUNS = {  # spec, user, phases of Schemathesis
    "gateway by a customer": ("gateway", CUSTOMER, ("examples", "coverage", "fuzzing", "stateful")),
    "gateway by staff": ("gateway", STAFF, ("examples", "stateful")),
    "gateway without a token": ("gateway", None, ("examples",)),
    "orchestrator by a customer": ("orchestrator", CUSTOMER, ("examples",)),
    "user": ("user", CUSTOMER, ("examples", "coverage", "fuzzing", "stateful")),
    "order": ("order", CUSTOMER, ("examples", "coverage", "fuzzing", "stateful")),
    "event": ("event", CUSTOMER, ("examples", "coverage", "fuzzing", "stateful")),
    "inventory": ("inventory", CUSTOMER, ("examples", "coverage", "fuzzing", "stateful")),
    "smu": ("smu", CUSTOMER, ("examples", "coverage", "fuzzing", "stateful")),
    "stripe": ("stripe", CUSTOMER, ("examples", "coverage", "fuzzing", "stateful")),
}


@dataclass
class Session:
    """The running stack, with clients that record their exchanges."""

    stack: Stack
    system: TestSystem
    credentials: Credentials
    pool: RecordingPool
    outcomes: dict[str, Future[Outcome]] = field(default_factory=dict)

    def url(self, server: str) -> str:
        """Return the address of the server that a spec describes."""
        return self.stack.url(PROGRAMS.get(server, f"{server}-service"))

    def outcome(self, run: str) -> Outcome:
        """Return what Schemathesis found in one of `RUNS`. The first call starts all runs, two at a time."""
        if not self.outcomes:
            executor = ProcessPoolExecutor(PROCESSES, get_context("spawn"))
            for name, (server, user_id, phases) in RUNS.items():
                arguments = (bundle(server), self.url(server), self.credentials, user_id)
                self.outcomes[name] = executor.submit(fuzz, *arguments, phases=phases)
            executor.shutdown(wait=False)
        return self.outcomes[run].result()

    def record(self) -> list[Exchange]:
        """Probe every operation, run every scenario, inject every fault, and return all exchanges."""
        wait(self.outcomes.values())  # because the faults below stop the databases
        addresses = {server: self.url(server) for server in SERVED}
        for server in SERVED:
            prober = Prober(addresses[server], self.credentials, self.pool)
            for operation in list_operations(bundle(server)):
                prober.probe(operation)
        scenarios.cover_all(self.system)
        internal.cover_all(self.system, addresses, self.credentials, self.pool)
        fault_answers.cover_undone_sagas(self.system)
        fault_answers.cover_rate_limits(self.stack, self.pool, self.credentials)
        addresses["gateway"] = self.url("gateway")
        fault_answers.cover_missing_databases(self.system, self.stack, self.pool, self.credentials, addresses)
        return self.pool.exchanges


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start a stack for this suite only.

    The suite calls participants in ways that no saga does, for example a charge without an order. Such data would break
    the invariants of the suites that share the other stack.
    """
    yield from running(tmp_path_factory.mktemp("contract"))
    return_free_memory()


@pytest.fixture(scope="package")
def seats() -> SeatPool:
    """Return the unused seats of that stack."""
    return SeatPool()


@pytest.fixture(scope="package")
def session(stack: Stack, seats: SeatPool) -> Session:
    """Connect recording clients to the stack."""
    servers = {stack.url(PROGRAMS.get(s, f"{s}-service")).removeprefix("http://"): s for s in SERVED}
    pool, system = RecordingPool(servers, maxsize=64), TestSystem(stack, seats)
    system._pool = pool  # every client of the system sends its requests through it
    return Session(stack, system, Credentials.of(stack), pool)


@pytest.fixture(scope="package")
def contracts() -> dict[str, Contract]:
    """Return a validator for each spec."""
    return {server: Contract(bundle(server)) for server in SERVED}


@pytest.fixture(scope="package")
def exchanges(session: Session) -> list[Exchange]:
    """Return the exchanges with every server, after all probes, scenarios and faults."""
    return session.record()
