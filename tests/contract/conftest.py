"""What the contract suite shares: who calls whom where, and everything that was said."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context

import pytest

from harness import Stack
from harness.dev.spec_bundle import SERVED, Document, bundle
from tests.claims.memory import give_back
from tests.contract import fault_answers, internal, scenarios
from tests.contract.callers import CUSTOMER, STAFF, Callers
from tests.contract.exchanges import Contract, Exchange, Listening
from tests.contract.fuzzing import Outcome, fuzz
from tests.contract.probes import Prober, all_of
from tests.support.running_stack import Seats, running
from tests.support.system import TestSystem

PROGRAMS = {"gateway": "api-gateway", "smu": "fake-smu", "stripe": "fake-stripe"}
PROCESSES = 2
RUNS = {  # spec, as whom, in which phases
    "gateway by a customer": ("gateway", CUSTOMER, ("examples", "coverage", "fuzzing", "stateful")),
    "gateway by staff": ("gateway", STAFF, ("examples", "stateful")),
    "gateway by nobody": ("gateway", None, ("examples",)),
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
    """The running system as the contract suite sees it."""

    stack: Stack
    system: TestSystem
    callers: Callers
    pool: Listening
    outcomes: dict[str, Future[Outcome]] = field(default_factory=dict)

    def url(self, server: str) -> str:
        """Where the server is that a spec speaks for."""
        return self.stack.url(PROGRAMS.get(server, f"{server}-service"))

    def outcome(self, run: str) -> Outcome:
        """What Schemathesis found in one of `RUNS`; the first to ask has all of them made, two at a time."""
        if not self.outcomes:
            several = ProcessPoolExecutor(PROCESSES, get_context("spawn"))
            for name, (server, user_id, phases) in RUNS.items():
                asked = (bundle(server), self.url(server), self.callers, user_id)
                self.outcomes[name] = several.submit(fuzz, *asked, phases=phases)
            several.shutdown(wait=False)
        return self.outcomes[run].result()

    def converse(self) -> list[Exchange]:
        """Probe every operation, play every scene, cause every fault; all that was said."""
        wait(self.outcomes.values())  # what follows takes the databases away
        addresses = {server: self.url(server) for server in SERVED}
        for server in SERVED:
            prober = Prober(addresses[server], self.callers, self.pool)
            for operation in all_of(bundle(server)):
                prober.probe(operation)
        scenarios.play(self.system)
        internal.play(self.system, addresses, self.callers, self.pool)
        fault_answers.undone(self.system)
        fault_answers.limited(self.stack, self.pool, self.callers)
        addresses["gateway"] = self.url("gateway")
        fault_answers.without_databases(self.system, self.stack, self.pool, self.callers, addresses)
        return self.pool.heard


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A system of this suite's own, ended with it.

    Participants are asked straight here for what no saga would ask: charges without an order, transfers of seats that
    are not there. The invariants of the suites that share the session's stack would find all that.
    """
    yield from running(tmp_path_factory.mktemp("contract"))
    give_back()


@pytest.fixture(scope="package")
def seats() -> Seats:
    """The seats of that system."""
    return Seats()


@pytest.fixture(scope="package")
def session(stack: Stack, seats: Seats) -> Session:
    """The running system."""
    servers = {stack.url(PROGRAMS.get(s, f"{s}-service")).removeprefix("http://"): s for s in SERVED}
    pool, system = Listening(servers, maxsize=64), TestSystem(stack, seats)
    system._pool = pool  # everybody in system speaks over it
    return Session(stack, system, Callers.of(stack), pool)


@pytest.fixture(scope="package")
def contracts() -> dict[str, Contract]:
    """Every spec of something that is served."""
    return {server: Contract(bundle(server)) for server in SERVED}


@pytest.fixture(scope="package")
def said(session: Session) -> list[Exchange]:
    """A conversation with every server that reaches what needs people, clocks, races or faults."""
    return session.converse()


@pytest.fixture
def documents() -> dict[str, Document]:
    """Every spec, for a test to break."""
    return {server: bundle(server) for server in SERVED}
