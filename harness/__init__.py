"""Brings the system of compose.yaml up natively, for `make up` and for every suite."""

from harness.errors import StackError
from harness.runtime.stack import Stack

__all__ = ["Stack", "StackError"]
