"""Real death: a real orchestrator process is SIGKILLed at every turn of every saga, and another finishes the work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.saga import waves
from tests.saga.deaths import DEATHS, Death
from tests.saga.system import System

pytestmark = pytest.mark.saga

WAVE = 16  # processes that die together


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


@pytest.mark.parametrize("death", DEATHS, ids=str)
def test_saga_of_a_killed_orchestrator_is_finished_by_another(death: Death, verdicts: Waves) -> None:
    if wrong := verdicts.verdict(death):
        raise wrong
