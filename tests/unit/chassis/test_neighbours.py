"""The circuit breaker and the bulkhead of a neighbour."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NoReturn

import pytest
from prometheus_client import REGISTRY

from services.chassis import neighbours
from services.chassis.clients import CALL_SECONDS, GrpcPeer, HttpPeer
from services.chassis.errors import Away, NoAnswer, NotSent, Refused, Unknown, Unreachable
from services.chassis.neighbours import Neighbour, Slots
from services.contracts.errors import ErrorCode
from tests.support.service_settings import make_credential
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unit

AT_ONCE = 10.0  # seconds, on a busy machine. Ten calls that wait take 20 s


@pytest.fixture(autouse=True)
def quick_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a neighbour be away after 0.1 s."""
    monkeypatch.setattr(neighbours, "AWAY_SECONDS", 0.1)
    monkeypatch.setattr(neighbours, "PROBE_PAUSE", 0.05)


def fail(neighbour: Neighbour, error: Unknown | None = None) -> Unknown:
    """Make a call without an answer and return its error."""
    with pytest.raises(Unknown) as caught, neighbour.calling():
        raise error or Unreachable("refused")
    return caught.value


def time_out(neighbour: Neighbour, meanwhile: Callable[[], object] = lambda: None) -> Unknown:
    """Make a call that waits in vain, and return its error."""

    def call() -> None:
        with neighbour.calling():
            meanwhile()
            time.sleep(neighbours.AWAY_SECONDS * 2)  # the timeout of the call
            raise NoAnswer("silent")

    with pytest.raises(NoAnswer) as caught:
        call()
    return caught.value


def answer(neighbour: Neighbour) -> None:
    """Make a call that is answered."""
    with neighbour.calling():
        pass


def make_away(neighbour: Neighbour) -> None:
    """Let calls fail until the neighbour is away and its probe has failed too."""
    wait_until(lambda: fail(neighbour).is_away)


@contextmanager
def blocked(neighbour: Neighbour, number: int) -> Iterator[threading.Event]:
    """Run the block while `number` calls wait for their answers. The event answers them."""
    released, inside = threading.Event(), threading.Semaphore(0)

    def call() -> None:
        with neighbour.calling():
            inside.release()
            released.wait(10)

    with ThreadPoolExecutor(number) as pool:
        for _ in range(number):
            pool.submit(call)
        for _ in range(number):
            assert inside.acquire(timeout=10)
        try:
            yield released
        finally:
            released.set()


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# ── circuit breaker


def test_neighbour_that_is_away_gets_no_calls_but_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    neighbour, made = Neighbour("breaker"), []
    monkeypatch.setattr(neighbours, "PROBE_PAUSE", 60)
    make_away(neighbour)
    with pytest.raises(Away), neighbour.calling():
        made.append("a call")
    assert (made, metric("neighbour_away", neighbour="breaker")) == ([], 1)

    def is_back() -> bool:
        try:
            answer(neighbour)
        except Away:
            return False
        return True

    neighbour._probe_at = 0.0
    wait_until(is_back)
    answer(neighbour)
    assert metric("neighbour_away", neighbour="breaker") == 0
    assert metric("neighbour_refusals_total", neighbour="breaker", reason="away") > 0


def test_first_failures_are_no_reason_to_stop_calling() -> None:
    neighbour = Neighbour("blip")
    assert not fail(neighbour).is_away
    assert not fail(neighbour).is_away
    answer(neighbour)
    time.sleep(neighbours.AWAY_SECONDS)  # the time of failures before an answer does not count
    assert not fail(neighbour).is_away
    answer(neighbour)


def test_one_lost_answer_leaves_the_next_call_to_probe_at_once() -> None:
    neighbour = Neighbour("one lost")
    assert not time_out(neighbour).is_away, "the caller tries again"
    answer(neighbour)


def test_a_silent_call_does_not_count_if_others_were_answered() -> None:
    neighbour = Neighbour("one slow call")
    time_out(neighbour, meanwhile=lambda: answer(neighbour))
    with blocked(neighbour, 3):
        answer(neighbour)


@pytest.mark.parametrize("error", [Refused(ErrorCode.ORDER_FAILED), Unknown("a lock timeout"), KeyError("a bug")])
def test_any_answer_shows_that_the_neighbour_works(error: Exception) -> None:
    neighbour = Neighbour("answers")
    fail(neighbour)
    time.sleep(neighbours.AWAY_SECONDS)
    with pytest.raises(type(error)), neighbour.calling():
        raise error
    assert not fail(neighbour).is_away


def test_only_one_call_at_a_time_probes() -> None:
    neighbour = Neighbour("probed")
    make_away(neighbour)
    wait_until(lambda: not refuses(neighbour))
    with blocked(neighbour, 1):
        with pytest.raises(Away):
            answer(neighbour)
        assert refuses(neighbour)
    answer(neighbour)


def refuses(neighbour: Neighbour) -> bool:
    """Return whether work that needs the neighbour is refused before it starts."""
    try:
        neighbour.refuse_if_away()
    except Away:
        return True
    return False


def test_failure_counts_for_the_inner_neighbour_only() -> None:
    outer, inner = Neighbour("outer"), Neighbour("inner")
    for _ in range(2):  # the second call probes
        with pytest.raises(NoAnswer), outer.calling():
            raise time_out(inner)
    assert (refuses(outer), metric("neighbour_away", neighbour="outer")) == (False, 0)
    assert metric("neighbour_away", neighbour="inner") == 1


def test_probe_has_a_shorter_timeout() -> None:
    """The call after one without an answer probes. A hung service therefore costs it little more time."""
    neighbour = Neighbour("hung", probe_seconds=0.5)
    with neighbour.calling() as call:
        assert call.limit(2.0) == 2.0
    make_away(neighbour)
    wait_until(lambda: not refuses(neighbour))
    with neighbour.calling() as probe:
        assert (probe.limit(2.0), probe.limit(0.1)) == (0.5, 0.1)


def test_clients_limit_their_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "AWAY_SECONDS", 0.0)
    credential, timeouts = make_credential("event-service", "order-service"), list[float]()

    def be_silent(*arguments: object, timeout: float = 0.0, **_: object) -> NoReturn:
        timeouts.append(timeout or float(str(arguments[-1])))
        raise TimeoutError

    http = HttpPeer("Order", "http://order", credential, be_silent, probe_seconds=0.5)
    grpc = GrpcPeer("Inventory", credential, probe_seconds=0.5)
    calls: list[Callable[[], object]] = [lambda: http.get("/orders/1"), lambda: grpc.call(be_silent, object())]
    for call in calls:
        for _ in range(2):
            with pytest.raises(NoAnswer):
                call()
    assert timeouts == [CALL_SECONDS, 0.5] * 2


# ── bulkhead


def test_calls_beyond_the_share_of_a_silent_neighbour_fail_at_once() -> None:
    neighbour = Neighbour("silent", slots=2, stalled_seconds=0.1)
    with blocked(neighbour, 2):
        assert metric("neighbour_calls_in_progress", neighbour="silent") == 2
        with pytest.raises(Away):
            answer(neighbour)  # waits until the slots have not changed hands for 0.1 s
        started = time.monotonic()
        for _ in range(10):
            with pytest.raises(NotSent, match="busy"):
                answer(neighbour)
        assert time.monotonic() - started < AT_ONCE
    answer(neighbour)
    assert metric("neighbour_refusals_total", neighbour="silent", reason="busy") == 11


def test_calls_to_a_busy_neighbour_that_answers_wait_in_order() -> None:
    slots, order, gates = Slots(1, stalled_seconds=5), [], [threading.Event() for _ in range(4)]
    assert slots.take()

    def wait(number: int) -> None:
        gates[number].set()
        assert slots.take()
        order.append(number)
        slots.release()

    with ThreadPoolExecutor(4) as pool:
        futures: list[Future[None]] = []
        for number in range(4):
            futures.append(pool.submit(wait, number))
            wait_until(lambda waiting=number + 1: slots.waiting == waiting)  # type: ignore[misc]
        slots.release()
        for future in futures:
            future.result()
    assert (order, slots.taken) == ([0, 1, 2, 3], 0)


def test_a_busy_neighbour_refuses_nobody_while_its_slots_change_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    neighbour, calls = Neighbour("busy", slots=2, stalled_seconds=5), 60
    monkeypatch.setattr(neighbours, "LONGEST_WAIT", 30)

    def call() -> None:
        with neighbour.calling():
            time.sleep(0.2)  # the time of an answer. All calls take 6 s

    with ThreadPoolExecutor(calls) as pool:
        for future in [pool.submit(call) for _ in range(calls)]:
            future.result()


def test_a_waiter_that_gives_up_leaves_its_turn_to_the_next() -> None:
    slots = Slots(1, stalled_seconds=5)
    assert slots.take()
    assert not slots.take(0.01)
    slots.release()
    assert slots.take(0.0)
    assert slots.waiting == 0
