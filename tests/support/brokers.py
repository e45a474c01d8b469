"""A real RabbitMQ for a pytest session, with its own ports and directory.

    def test_something(broker):
        Publisher(broker.settings, "test")

The harness's program runs it as a process, or testcontainers does if the system runs in containers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.runtime import ports
from harness.runtime.process import Identity, listens, wait_for
from harness.runtime.program import Program
from harness.runtime.rabbitmq import plan_epmd, plan_rabbitmq
from harness.runtime.supervisor import START_SECONDS
from services.chassis.settings import Address, BrokerSettings
from tests.support.running_stack import IN_CONTAINERS


class Broker:
    """RabbitMQ with the topology of services/rabbitmq/definitions.json. `close` stops it and removes its files."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="ticketremaster-broker-"))
        amqp, management, distribution, mapper = self._ports = ports.claim([20672, 21672, 22672, 23672])
        own = {5672: amqp, 15672: management, 25672: distribution, 4369: mapper}
        self._epmd = plan_epmd(mapper, self._home)
        self.program = plan_rabbitmq(own, self._home, "tester", "tester-pass")
        self.settings = BrokerSettings(addresses=(Address(ports.HOST, amqp),), user="tester", password="tester-pass")
        self._container = self._start_container(amqp) if IN_CONTAINERS else None
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for program in () if IN_CONTAINERS else (self._epmd, self.program):
                self._processes.append(self._start(program))
            assert wait_for(self.program.is_ready, START_SECONDS)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Stop the broker cleanly. Its port mapper (epmd) keeps running."""
        if self._container is not None:
            self._container.get_wrapped_container().stop()
            return
        process = self._processes.pop()
        process.terminate()
        process.wait(timeout=START_SECONDS)

    def start(self) -> None:
        """Start the broker again with its data, and wait until it accepts connections."""
        if self._container is not None:
            self._container.get_wrapped_container().start()
            assert wait_for(self.program.is_ready, START_SECONDS)
            return
        self._processes.append(self._start(self.program))

    def url(self, _name: str = "rabbitmq") -> str:
        """Return the AMQP URL, like a stack, so that `queue_admin` reads the queues of both."""
        return self.program.url

    def close(self) -> None:
        """Stop the broker and its port mapper, and delete their files."""
        if self._container is not None:
            self._container.stop()
        for process in reversed(self._processes):
            process.kill()
            process.wait(timeout=START_SECONDS)
        ports.release(self._ports)
        shutil.rmtree(self._home, ignore_errors=True)

    def _start_container(self, port: int) -> Any:
        from tests.support import containers

        return containers.rabbitmq("rabbitmq:4-management", port, self.settings.user, self.settings.password)

    def _start(self, program: Program) -> subprocess.Popen[bytes]:
        env = {**os.environ, **program.env}
        program.prepare(env)
        with open(self._home / f"{program.name}.log", "ab") as log:
            process = subprocess.Popen(program.argv, env=env, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if program.is_ready() and listens(Identity.of(process.pid), program.listen_ports):
                return process
            time.sleep(0.1)
        process.kill()
        process.wait()
        output = (self._home / f"{program.name}.log").read_text()
        raise RuntimeError(f"{program.name} did not start within {START_SECONDS} s, its log is:\n{output}")
