"""One lock file holds for every supported Python, and every pin in it has hashes."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.markers import Marker
from packaging.specifiers import SpecifierSet

from harness.runtime.compose import ROOT

pytestmark = pytest.mark.unit

LOCKS = ("requirements.lock", "requirements-dev.lock")
PIN = re.compile(
    r"(?m)^(?P<name>[a-z0-9._-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>.+?))? \\\n(?P<hashes>(?:    --hash=.*\n)+)"
)


def pins(lock: str) -> dict[str, re.Match[str]]:
    return {found["name"]: found for found in PIN.finditer((ROOT / lock).read_text())}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_of_a_lock_has_hashes(lock: str) -> None:
    lines = [line for line in (ROOT / lock).read_text().splitlines() if line and line[0] not in " #"]
    assert [line.partition("==")[0] for line in lines] == list(pins(lock))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_registry(lock: str) -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links", (ROOT / lock).read_text())


def test_both_locks_pin_the_same_versions() -> None:
    ours, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    assert {name: (pin["version"], pin["hashes"]) for name, pin in ours.items()} == {
        name: (dev[name]["version"], dev[name]["hashes"]) for name in ours
    }


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("lock", LOCKS)
def test_no_pin_is_left_out_on_a_supported_python(lock: str, version: str) -> None:
    """A marker may leave out a package of Windows, but none that depends on the version of Python."""
    machine = {"python_version": version, "python_full_version": f"{version}.0", "sys_platform": "linux"}
    machine |= {"platform_python_implementation": "CPython", "implementation_name": "cpython"}
    left_out = {
        name for name, pin in pins(lock).items() if pin["marker"] and not Marker(pin["marker"]).evaluate(machine)
    }
    assert left_out <= {"colorama", "pywin32"}


def test_the_project_sets_no_upper_bound_for_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {(each.operator, each.version) for each in SpecifierSet(project["requires-python"])} == {(">=", "3.11")}
