"""Run the system of compose.yaml on one machine, for `make up` and for every test suite."""

from harness.errors import StackError
from harness.runtime import Stack, attach, up

__all__ = ["Stack", "StackError", "attach", "up"]
