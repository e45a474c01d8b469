"""Real death: a real orchestrator process is SIGKILLed at every turn of every saga, and another finishes the work."""

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
from tests.saga import waves
from tests.saga.casts import Cast
from tests.saga.deaths import DEATHS, Death
from tests.saga.system import ORCHESTRATOR, Mortal, Person, System, until
from tests.saga.waves import Dead

pytestmark = pytest.mark.saga

WAVE = 16  # processes that die together: what they take is most of what `make verify` takes at its peak
ORPHANS = 50


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System.up(tmp_path_factory.mktemp("sigkill")) as running:
        yield running


class Waves:
    """The deaths that this run is to see, wave by wave as their tests come."""

    def __init__(self, system: System, deaths: list[Death]) -> None:
        self._system = system
        self._waves = [deaths[start : start + WAVE] for start in range(0, len(deaths), WAVE)]
        self._verdicts: waves.Verdicts = {}

    def verdict(self, death: Death) -> BaseException | None:
        if death not in self._verdicts:
            wave = next(wave for wave in self._waves if death in wave)
            self._verdicts |= waves.run(self._system, wave)
        return self._verdicts[death]


@pytest.fixture(scope="module")
def verdicts(system: System, request: pytest.FixtureRequest) -> Waves:
    """Waves of those deaths alone that were selected."""
    chosen = [item.callspec.params.get("death") for item in request.session.items if hasattr(item, "callspec")]
    return Waves(system, [death for death in DEATHS if death in chosen])


@contextmanager
def rescuer_gone(system: System) -> Iterator[None]:
    """Nobody is there to adopt anything, until the end of the block."""
    system.stack.kill(ORCHESTRATOR)
    try:
        yield
    finally:
        system.stack.start(ORCHESTRATOR)


# ── the matrix


@pytest.mark.claim("architecture/one-orchestrator")
@pytest.mark.parametrize("death", DEATHS, ids=str)
def test_saga_of_a_killed_orchestrator_is_finished_by_another(death: Death, verdicts: Waves) -> None:
    if wrong := verdicts.verdict(death):
        raise wrong


def test_every_step_and_every_undo_of_every_saga_is_died_at() -> None:
    """The list above is discovered; this says in numbers what it has to hold."""
    flows = {death.flow for death in DEATHS}
    assert flows == {"reserve", "pay", "refund", "initiate", "swap", "dispute", "reverse", "dismiss"}
    for flow in flows:
        of_flow = [death for death in DEATHS if death.flow == flow]
        saga = of_flow[0].saga
        undos = sum(step.undo is not None for step in saga.steps)
        actions = sum(step.do is not None for step in saga.steps)
        assert len(of_flow) == 3 + 2 * actions + 2 * undos


# ── more than one death


ADOPTERS = ("*:settled:*", "*:undoing:*", "*:answered:*")


def test_sagas_survive_the_deaths_of_their_adopters(system: System) -> None:
    """Victims die at each answer of each flow; then one adopter after another dies with its hands full."""
    orphaned = [death for death in DEATHS if death.turn == "answered"]
    casts = waves.cast_all(system, orphaned)  # while there is somebody to ask
    dead: list[Dead] = []
    with rescuer_gone(system):
        for wave in (slice(start, start + WAVE) for start in range(0, len(orphaned), WAVE)):
            with waves.doomed(system, orphaned[wave], casts[wave]) as stage:
                dead += waves.kill_all(stage)
        for at in ADOPTERS:
            with system.mortals({"KILL_AT": at, "IDLE": "completion,outbox"}, die_at_once=True) as (adopter,):
                assert adopter.await_end(20)[0] == -signal.SIGKILL, at
    ready_at = time.time()
    verdicts = waves.judge_all(dead, ready_at, adopters=1 + len(ADOPTERS))
    assert {death: wrong for death, wrong in verdicts.items() if wrong} == {}
    invariants.assert_hold(system.connect)


def test_two_orchestrators_share_fifty_orphans_and_end_each_once(system: System) -> None:
    ends = {"pay:answered:confirm_order": "undone", "pay:answered:confirm_seat": "done"}
    twin = system.stack.start_replica(ORCHESTRATOR)
    rescuers = [system.rescuer, system.stack.url(twin)]
    adopted_before = sum(system.metric(url, "sagas_adopted_total", flow="pay") for url in rescuers)
    casts = {at: _orphans(system, ORPHANS // 2) for at in ends}
    count = {"KILL_COUNT": str(ORPHANS // 2), "DB_POOL_SIZE": "32", "IDLE": waves.VICTIM}
    with system.mortals(*({"KILL_AT": at, **count} for at in ends)) as mortals:
        with ThreadPoolExecutor(ORPHANS) as pool:
            for mortal, at in zip(mortals, ends, strict=True):
                for cast in casts[at]:
                    pool.submit(_pay_in_vain, cast, mortal)
        assert [mortal.await_end(5)[0] for mortal in mortals] == [-signal.SIGKILL] * 2
    until("all have ended", lambda: system.running_sagas() == 0, 15)
    for cast in casts["pay:answered:confirm_order"]:
        assert [(saga["status"], saga["adoptions"]) for saga in cast.sagas("pay")] == [(Status.UNDONE, 1)]
        assert cast.movements() == ["DEDUCT", "REFUND"]
    for cast in casts["pay:answered:confirm_seat"]:
        assert [(saga["status"], saga["adoptions"]) for saga in cast.sagas("pay")] == [(Status.DONE, 1)]
        assert cast.movements() == ["DEDUCT"]
    adopted = sum(system.metric(url, "sagas_adopted_total", flow="pay") for url in rescuers)
    assert adopted - adopted_before == ORPHANS
    system.stack.stop(twin)
    invariants.assert_hold(system.connect)


def _orphans(system: System, number: int) -> list[Cast]:
    with ThreadPoolExecutor(waves.AT_ONCE) as pool:
        casts = list(pool.map(lambda _: Cast(system), range(number)))
        list(pool.map(Cast.hold, casts))
    return casts


def _pay_in_vain(cast: Cast, mortal: Mortal) -> None:
    with pytest.raises(urllib3.exceptions.ProtocolError):
        cast.ask_pay(mortal.url)


# ── a clean stop


def test_stopped_orchestrator_finishes_what_it_has_in_hand(system: System) -> None:
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
    with system.mortals({}) as (mortal,), ThreadPoolExecutor(len(people)) as pool:
        customers = [pool.submit(buy_and_buy, person, mortal.url) for person in people]
        until("the load is on", lambda: len(told) >= 20, 15)
        os.kill(mortal.pid, signal.SIGTERM)
        assert mortal.await_end(15)[0] == 0
        assert system.running_sagas() == 0
    for customer in customers:
        customer.result()
    assert system.sagas_of(people) == {("DONE", 1)}
    for order_id, status in told:
        assert system.order_status(order_id) in (status, "CONFIRMED")
    invariants.assert_hold(system.connect)


# ── notices


@pytest.mark.parametrize(("fault", "letters"), [("late", 2), ("hang", 1)])
def test_notice_survives_the_death_of_its_sender(fault: str, letters: int, system: System) -> None:
    """The process dies while SMU has the letter in hand: it is sent again, once more if SMU had sent it already."""
    cast = Cast(system)
    cast.hold()
    with rescuer_gone(system), system.mortals({}) as (mortal,):
        with system.slow_mail(cast.seller.email, fault) as is_in_hand:
            cast.ask_pay(mortal.url).must(200)
            until("SMU has it in hand", is_in_hand, 5)
            os.killpg(mortal.pid, signal.SIGKILL)
        assert not cast.are_told(cast.sagas("pay")[-1]["saga_id"])
    until("the letter has come", lambda: cast.are_told(cast.sagas("pay")[-1]["saga_id"]), 5)
    assert cast.letters(cast.seller, "booking_confirmed") == letters


# ── holds


@pytest.mark.claim("reserve/publishes-hold-message", "queue/releases-despite-crash")
def test_every_promised_hold_has_its_wake_up_call(system: System) -> None:
    """I9, as far as this module goes: whoever was promised a hold, the broker has its message or has delivered it."""
    rows = system.run("sagas_db", "SELECT subject::text AS id FROM sagas WHERE flow = 'reserve' AND status = 'DONE'")
    delivered = system.run("seats_db", "SELECT message_id FROM release_messages")
    queued = system.messages("seat.hold.queue") | system.messages("seat.release.parking.queue")
    promised = {row["id"] for row in rows}
    assert promised
    assert promised <= queued | {row["message_id"] for row in delivered}


# ── the checks themselves: with a guard taken away they have to fail


def _death(name: str) -> Death:
    return next(death for death in DEATHS if str(death) == name)


def _killed(system: System, death: Death, **laid: str) -> Dead:
    cast = waves.prepare(system, death)
    with system.mortals({"IDLE": waves.VICTIM, **laid}) as (mortal,):
        return waves.kill(waves.Doomed(death, cast, mortal))


@pytest.mark.negative_control
def test_without_recovery_the_check_fails(system: System) -> None:
    death = _death("pay-forward-answered-deduct_credits")
    with waves.doomed(system, [death]) as stage, rescuer_gone(system):
        (dead,) = waves.kill_all(stage)
        with system.mortals({"IDLE": "recovery"}), pytest.raises(AssertionError, match="has ended"):
            waves.judge(dead, time.time())
    waves.judge(dead, time.time())


@pytest.mark.negative_control
def test_without_a_begin_write_the_check_fails(system: System) -> None:
    death = _death("pay-forward-answered-deduct_credits")
    dead = _killed(system, death, KILL_AT=death.kill_at, JOURNAL="NeverBegun")
    with pytest.raises(AssertionError, match="knows of no such saga"):
        waves.judge(dead)
    assert any(line.startswith("i1_money") for line in dead.cast.violations())
    dead.cast.ask_pay(system.rescuer).must(200)  # under the same keys: the charge is not taken twice
    assert dead.cast.standing() == death.plot.done


@pytest.mark.negative_control
def test_with_notices_written_after_the_end_the_check_fails(system: System) -> None:
    death = _death("pay-forward-ended")
    dead = _killed(system, death, JOURNAL="NoticesAfterwards")
    with pytest.raises(AssertionError, match="i10_every_notice"):
        waves.judge(dead)
    system.write_notice(dead.cast.sagas("pay")[-1]["saga_id"], dead.cast.seller)
    waves.judge(dead)
