"""A real orchestrator process is killed (SIGKILL) at every crash point of every saga; another one finishes the saga."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
import urllib3

from harness import invariants
from services.orchestrator.saga.journal import Status
from tests.saga.crash import crash_batches
from tests.saga.crash.actors import Actors
from tests.saga.crash.crash_batches import CrashedProcess
from tests.saga.crash.crash_points import CRASH_POINTS, CrashPoint
from tests.saga.crash.crash_system import ORCHESTRATOR, CrashTestSystem, KillableOrchestrator, Person, until

pytestmark = pytest.mark.saga

WAVE = 16  # processes that die together: what they take is most of what `make verify` takes at its peak
ORPHANS = 50


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashTestSystem]:
    with CrashTestSystem.up(tmp_path_factory.mktemp("sigkill")) as running:
        yield running


class CrashBatches:
    """The crash_points that this run is to see, wave by wave as their tests come."""

    def __init__(self, system: CrashTestSystem, crash_points: list[CrashPoint]) -> None:
        self._system = system
        self._waves = [crash_points[start : start + WAVE] for start in range(0, len(crash_points), WAVE)]
        self._verdicts: crash_batches.Verdicts = {}

    def verdict(self, crash_point: CrashPoint) -> BaseException | None:
        if crash_point not in self._verdicts:
            wave = next(wave for wave in self._waves if crash_point in wave)
            self._verdicts |= crash_batches.run(self._system, wave)
        return self._verdicts[crash_point]


@pytest.fixture(scope="module")
def verdicts(system: CrashTestSystem, request: pytest.FixtureRequest) -> CrashBatches:
    """CrashBatches of those crash_points alone that were selected."""
    chosen = [item.callspec.params.get("crash_point") for item in request.session.items if hasattr(item, "callspec")]
    return CrashBatches(system, [crash_point for crash_point in CRASH_POINTS if crash_point in chosen])


@contextmanager
def rescuer_gone(system: CrashTestSystem) -> Iterator[None]:
    """Nobody is there to adopt anything, until the end of the block."""
    system.stack.kill(ORCHESTRATOR)
    try:
        yield
    finally:
        system.stack.start(ORCHESTRATOR)


# ── the matrix


@pytest.mark.claim("architecture/one-orchestrator")
@pytest.mark.parametrize("crash_point", CRASH_POINTS, ids=str)
def test_saga_of_a_killed_orchestrator_is_finished_by_another(crash_point: CrashPoint, verdicts: CrashBatches) -> None:
    if wrong := verdicts.verdict(crash_point):
        raise wrong


def test_every_step_and_every_undo_of_every_saga_is_died_at() -> None:
    """The list above is discovered; this says in numbers what it has to hold."""
    flows = {crash_point.flow for crash_point in CRASH_POINTS}
    assert flows == {"reserve", "pay", "refund", "initiate", "transfer_confirm", "dispute", "reverse", "dismiss"}
    for flow in flows:
        of_flow = [crash_point for crash_point in CRASH_POINTS if crash_point.flow == flow]
        saga = of_flow[0].saga
        undos = sum(step.undo is not None for step in saga.steps)
        actions = sum(step.do is not None for step in saga.steps)
        assert len(of_flow) == 3 + 2 * actions + 2 * undos


# ── more than one crash_point


ADOPTERS = ("*:settled:*", "*:undoing:*", "*:answered:*")


def test_sagas_survive_the_deaths_of_their_adopters(system: CrashTestSystem) -> None:
    """Victims die at each answer of each flow; then one adopter after another dies with its hands full."""
    orphaned = [crash_point for crash_point in CRASH_POINTS if crash_point.turn == "answered"]
    actors = crash_batches.cast_all(system, orphaned)  # while there is somebody to ask
    dead: list[CrashedProcess] = []
    with rescuer_gone(system):
        for wave in (slice(start, start + WAVE) for start in range(0, len(orphaned), WAVE)):
            with crash_batches.armed_processes(system, orphaned[wave], actors[wave]) as stage:
                dead += crash_batches.kill_all(stage)
        for at in ADOPTERS:
            with system.killable_orchestrators({"KILL_AT": at, "IDLE": "completion,outbox"}, die_at_once=True) as (
                adopter,
            ):
                assert adopter.await_end(20)[0] == -signal.SIGKILL, at
    ready_at = time.time()
    verdicts = crash_batches.judge_all(dead, ready_at, adopters=1 + len(ADOPTERS))
    assert {crash_point: wrong for crash_point, wrong in verdicts.items() if wrong} == {}
    invariants.assert_hold(system.connect)


def test_two_orchestrators_share_fifty_orphans_and_end_each_once(system: CrashTestSystem) -> None:
    ends = {"pay:answered:confirm_order": "undone", "pay:answered:confirm_seat": "done"}
    twin = system.stack.start_replica(ORCHESTRATOR)
    rescuers = [system.rescuer, system.stack.url(twin)]
    adopted_before = sum(system.metric(url, "sagas_adopted_total", flow="pay") for url in rescuers)
    actors = {at: _orphans(system, ORPHANS // 2) for at in ends}
    count = {"KILL_COUNT": str(ORPHANS // 2), "DB_POOL_SIZE": "32", "IDLE": crash_batches.VICTIM}
    with system.killable_orchestrators(*({"KILL_AT": at, **count} for at in ends)) as killable_orchestrators:
        with ThreadPoolExecutor(ORPHANS) as pool:
            for orchestrator, at in zip(killable_orchestrators, ends, strict=True):
                for each in actors[at]:
                    pool.submit(_pay_in_vain, each, orchestrator)
        assert [orchestrator.await_end(5)[0] for orchestrator in killable_orchestrators] == [-signal.SIGKILL] * 2
    until("all have ended", lambda: system.running_sagas() == 0, 15)
    for each in actors["pay:answered:confirm_order"]:
        assert [(saga["status"], saga["adoptions"]) for saga in each.sagas("pay")] == [(Status.UNDONE, 1)]
        assert each.movements() == ["DEDUCT", "REFUND"]
    for each in actors["pay:answered:confirm_seat"]:
        assert [(saga["status"], saga["adoptions"]) for saga in each.sagas("pay")] == [(Status.DONE, 1)]
        assert each.movements() == ["DEDUCT"]
    adopted = sum(system.metric(url, "sagas_adopted_total", flow="pay") for url in rescuers)
    assert adopted - adopted_before == ORPHANS
    system.stack.stop(twin)
    invariants.assert_hold(system.connect)


def _orphans(system: CrashTestSystem, number: int) -> list[Actors]:
    with ThreadPoolExecutor(crash_batches.AT_ONCE) as pool:
        actors = list(pool.map(lambda _: Actors(system), range(number)))
        list(pool.map(Actors.hold, actors))
    return actors


def _pay_in_vain(actors: Actors, orchestrator: KillableOrchestrator) -> None:
    with pytest.raises(urllib3.exceptions.ProtocolError):
        actors.ask_pay(orchestrator.url)


# ── a clean stop


def test_stopped_orchestrator_finishes_what_it_has_in_hand(system: CrashTestSystem) -> None:
    """SIGTERM under load: who was answered has what they were told, and no saga is left to recovery."""
    told: list[tuple[str, str]] = []  # order and the status that its buyer was told

    def buy_and_buy(person: Person, url: str) -> None:
        with suppress(urllib3.exceptions.HTTPError):  # until the door is closed
            while True:
                held = person.at(url).reserve(system.seat("CAT3")).must(200)
                told.append((held["order_id"], "PENDING"))
                person.at(url).pay(held["order_id"]).must(200)
                told.append((held["order_id"], "CONFIRMED"))

    people = [system.person(90_000) for _ in range(8)]
    with system.killable_orchestrators({}) as (orchestrator,), ThreadPoolExecutor(len(people)) as pool:
        customers = [pool.submit(buy_and_buy, person, orchestrator.url) for person in people]
        until("the load is on", lambda: len(told) >= 20, 15)
        os.kill(orchestrator.pid, signal.SIGTERM)
        assert orchestrator.await_end(15)[0] == 0
        assert system.running_sagas() == 0
    for customer in customers:
        customer.result()
    assert system.sagas_of(people) == {("DONE", 1)}
    for order_id, status in told:
        assert system.order_status(order_id) in (status, "CONFIRMED")
    invariants.assert_hold(system.connect)


# ── notices


@pytest.mark.parametrize(("fault", "letters"), [("late", 2), ("hang", 1)])
def test_notice_survives_the_death_of_its_sender(fault: str, letters: int, system: CrashTestSystem) -> None:
    """The process dies while SMU has the letter in hand: it is sent again, once more if SMU had sent it already."""
    actors = Actors(system)
    actors.hold()
    with rescuer_gone(system), system.killable_orchestrators({}) as (orchestrator,):
        with system.slow_mail(actors.seller.email, fault) as is_in_hand:
            actors.ask_pay(orchestrator.url).must(200)
            until("SMU has it in hand", is_in_hand, 5)
            os.killpg(orchestrator.pid, signal.SIGKILL)
        assert not actors.are_told(actors.sagas("pay")[-1]["saga_id"])
    until("the letter has come", lambda: actors.are_told(actors.sagas("pay")[-1]["saga_id"]), 5)
    assert actors.letters(actors.seller, "booking_confirmed") == letters


# ── holds


@pytest.mark.claim("reserve/publishes-hold-message", "queue/releases-despite-crash")
def test_every_promised_hold_has_its_wake_up_call(system: CrashTestSystem) -> None:
    """I9, as far as this module goes: whoever was promised a hold, the broker has its message or has delivered it."""
    rows = system.run("sagas_db", "SELECT subject::text AS id FROM sagas WHERE flow = 'reserve' AND status = 'DONE'")
    delivered = system.run("seats_db", "SELECT message_id FROM release_messages")
    queued = system.messages("seat.hold.queue") | system.messages("seat.release.parking.queue")
    promised = {row["id"] for row in rows}
    assert promised
    assert promised <= queued | {row["message_id"] for row in delivered}


# ── the checks themselves: with a guard taken away they have to fail


def _death(name: str) -> CrashPoint:
    return next(crash_point for crash_point in CRASH_POINTS if str(crash_point) == name)


def _killed(system: CrashTestSystem, crash_point: CrashPoint, **laid: str) -> CrashedProcess:
    actors = crash_batches.prepare(system, crash_point)
    with system.killable_orchestrators({"IDLE": crash_batches.VICTIM, **laid}) as (orchestrator,):
        return crash_batches.kill(crash_batches.ArmedProcess(crash_point, actors, orchestrator))


@pytest.mark.negative_control
def test_without_recovery_the_check_fails(system: CrashTestSystem) -> None:
    crash_point = _death("pay-forward-answered-deduct_credits")
    with crash_batches.armed_processes(system, [crash_point]) as stage, rescuer_gone(system):
        (dead,) = crash_batches.kill_all(stage)
        with system.killable_orchestrators({"IDLE": "recovery"}), pytest.raises(AssertionError, match="has ended"):
            crash_batches.judge(dead, time.time())
    crash_batches.judge(dead, time.time())


@pytest.mark.negative_control
def test_without_a_begin_write_the_check_fails(system: CrashTestSystem) -> None:
    crash_point = _death("pay-forward-answered-deduct_credits")
    dead = _killed(system, crash_point, KILL_AT=crash_point.kill_at, JOURNAL="NeverBegun")
    with pytest.raises(AssertionError, match="knows of no such saga"):
        crash_batches.judge(dead)
    assert any(line.startswith("i1_money") for line in dead.actors.violations())
    dead.actors.ask_pay(system.rescuer).must(200)  # under the same keys: the charge is not taken twice
    assert dead.actors.state() == crash_point.plot.done


def test_with_notices_written_after_the_end_the_check_fails(system: CrashTestSystem) -> None:
    crash_point = _death("pay-forward-ended")
    dead = _killed(system, crash_point, JOURNAL="NoticesAfterwards")
    with pytest.raises(AssertionError, match="i10_every_notice"):
        crash_batches.judge(dead)
    system.write_notice(dead.actors.sagas("pay")[-1]["saga_id"], dead.actors.seller)
    crash_batches.judge(dead)
