"""Find RabbitMQ, etcd and Chromium on this machine, or install them with apt."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import StackError
from harness.runtime import progress

POLICY = Path("/usr/sbin/policy-rc.d")  # Debian runs it to decide whether a package may start its daemon
HOMES = ("/usr/lib/rabbitmq/lib/rabbitmq_server-*", "/usr/local/lib/erlang/lib/rabbitmq_server-*", "/opt/rabbitmq*")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOMES_OF_BREW = ("/opt/homebrew/opt/rabbitmq", "/usr/local/opt/rabbitmq")
ETCD = "etcd-server"
DENY = "#!/bin/sh\nexit 101\n"


def ensure_broker() -> Path:
    """Return the broker's start script, and install RabbitMQ first if it is missing.

    Raises StackError with the command to run if this user cannot install it.
    """
    found = find_broker()
    if not found and _install("rabbitmq-server"):
        found = find_broker()
    if not found:
        raise StackError(f"RabbitMQ is not installed, and this user cannot install it. {_advise()}")
    return found


def ensure_etcd() -> Path:
    """Return etcd, and install it first if it is missing. Raises StackError with the command to run if it cannot."""
    if problem := find_etcd_problem():
        raise StackError(problem)
    found = find_etcd() or (find_etcd() if _install(ETCD) else None)
    if not found:
        raise StackError(f"the package {ETCD} has no program `etcd`")
    return found


def find_etcd() -> Path | None:
    """Return etcd on this machine, or None."""
    found = shutil.which("etcd")
    return Path(found) if found else None


def find_etcd_problem() -> str | None:
    """Return the reason why this machine has no etcd and cannot install it, or None."""
    if find_etcd() or (shutil.which("apt-get") and _root_prefix() is not None):
        return None
    return f"etcd is not installed, and this user cannot install it. Type: sudo apt-get install {ETCD}"


def ensure_browser() -> Path | None:
    """Return Chromium, and install it first if it is missing. Return None if this user cannot install it.

    Only browser tests need it, so its absence is no error.
    """
    found = find_browser()
    try:
        return find_browser() if not found and _install("chromium") else found
    except StackError:  # Ubuntu has Chromium only as a snap
        return None


def find_browser() -> Path | None:
    """Return Chromium or Chrome on this machine, or None."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return Path(found) if found else None


def _advise() -> str:
    if shutil.which("apt-get"):
        return "Type: sudo apt-get install --no-install-recommends rabbitmq-server"
    if shutil.which("brew"):
        return "Type: brew install rabbitmq"
    return "Install Docker, or Erlang with RabbitMQ's generic Unix build unpacked under /opt/rabbitmq."


def find_broker_source() -> str | None:
    """Return where RabbitMQ is or will come from, or None if it is missing and cannot be installed."""
    if found := find_broker():
        return f"RabbitMQ is installed ({found})"
    return "apt can install RabbitMQ" if shutil.which("apt-get") and _root_prefix() is not None else None


def find_broker() -> Path | None:
    """Return the broker's start script on this machine, or None."""
    brew = [Path(home) for home in HOMES_OF_BREW]
    homes = [path for pattern in HOMES for path in Path("/").glob(pattern.lstrip("/"))]
    found = (home / "sbin" / "rabbitmq-server" for home in [*sorted(homes, reverse=True), *brew])
    return next((path for path in found if os.access(path, os.X_OK)), None)


def _install(package: str) -> bool:
    """Install a package of apt. Return whether this user can. Raises StackError with the output of apt."""
    rights = _root_prefix() if shutil.which("apt-get") else None
    if rights is None:
        return False
    text = f"installing {package} with apt-get"
    progress.print_line(text)
    with progress.report_every(text), _no_system_daemon(rights):
        _apt(rights, "update", "-qq")
        _apt(rights, "install", "-y", "-qq", "--no-install-recommends", package)
    return True


def _root_prefix() -> list[str] | None:
    """Return the command prefix that gives root rights, or None if this user has none."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None


def _apt(rights: list[str], *arguments: str) -> None:
    command = [*rights, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")


@contextmanager
def _no_system_daemon(rights: list[str]) -> Iterator[None]:
    """Prevent apt from starting a system broker, because it would take port 5672 and keep running."""
    if POLICY.exists():  # the machine has its own policy, which must not change
        yield
        return
    subprocess.run([*rights, "sh", "-c", f"printf '{DENY}' >{POLICY} && chmod 755 {POLICY}"], check=True)
    try:
        yield
    finally:
        subprocess.run([*rights, "rm", "-f", str(POLICY)], check=True)
