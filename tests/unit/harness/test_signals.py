"""A foreground command completes its shutdown also when more signals arrive."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from harness.runtime.compose import ROOT
from harness.runtime.signals import SIGNALS

pytestmark = pytest.mark.unit

# The program signals itself. A signal from outside that arrives just before signal.pause() would be missed.
PROGRAM = """
import os, sys
from harness.runtime.signals import SIGNALS, interrupt_once
interrupt_once()
try:
    os.kill(os.getpid(), int(sys.argv[1]))
    print("not interrupted")
except KeyboardInterrupt:
    for number in SIGNALS:
        os.kill(os.getpid(), number)
    print("down")
"""


@pytest.mark.parametrize("first", SIGNALS)
def test_later_signals_do_not_interrupt_the_shutdown(first: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, str(int(first))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "down\n"), done.stderr
