"""A foreground command completes its shutdown also when more signals arrive."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from harness.runtime.compose import ROOT
from harness.runtime.signals import SIGNALS

pytestmark = pytest.mark.unit

PROGRAM = """
import os, signal
from harness.runtime.signals import SIGNALS, interrupt_once
interrupt_once()
try:
    print("up", flush=True)
    signal.pause()
except KeyboardInterrupt:
    for number in SIGNALS:
        os.kill(os.getpid(), number)
    print("down", flush=True)
"""


@pytest.mark.parametrize("first", SIGNALS)
def test_later_signals_do_not_interrupt_the_shutdown(first: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert program.stdout.readline() == "up\n"
        program.send_signal(first)
        assert program.stdout.read() == "down\n"
    assert program.returncode == 0
