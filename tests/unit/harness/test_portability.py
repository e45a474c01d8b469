"""`make demo` needs nothing that only Linux has, so that it can run on macOS."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.runtime.compose import ROOT

pytestmark = pytest.mark.unit

# Hides what Python has on Linux but not on macOS, then imports all that `make demo` starts.
PROGRAM = """
import importlib, pkgutil, sys

HIDDEN_MODULES = {"spwd", "ossaudiodev", "nis", "msvcrt", "winreg"}
HIDDEN_NAMES = {
    "os": ("sched_getaffinity", "sched_setaffinity", "sched_getparam", "pidfd_open", "memfd_create", "eventfd",
           "getresuid", "setresuid", "setresgid", "unshare", "setns", "splice", "copy_file_range", "getrandom",
           "posix_fadvise", "posix_fallocate", "fdatasync", "O_TMPFILE", "O_PATH", "O_DIRECT", "SCHED_BATCH"),
    "select": ("epoll", "EPOLLIN", "EPOLLEXCLUSIVE"),
    "signal": ("pidfd_send_signal", "sigtimedwait", "sigwaitinfo", "SIGRTMIN", "SIGRTMAX", "SIGPOLL", "SIGPWR"),
    "socket": ("AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG", "TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_QUICKACK",
               "TCP_DEFER_ACCEPT", "SO_PEERCRED", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "MSG_NOSIGNAL"),
    "resource": ("prlimit", "RLIMIT_OFILE", "RUSAGE_THREAD"),
    "time": ("pthread_getcpuclockid", "CLOCK_BOOTTIME", "CLOCK_TAI"),
    "mmap": ("MAP_POPULATE", "MAP_STACK"),
    "psutil.Process": ("cpu_affinity", "rlimit", "io_counters", "ionice", "memory_maps", "cpu_num"),
}
# The libraries may use what is there. They have their own variants for macOS, so they are imported before.
for library in ("psutil", "psycopg2", "pika", "grpc", "granian", "gunicorn.app.base", "requests", "stripe", "flask",
                "yaml", "msgspec", "segno", "prometheus_client", "grpc_health.v1.health",
                "grpc_reflection.v1alpha.reflection", "concurrent.futures.thread", "multiprocessing.process",
                "asyncio", "selectors", "socketserver", "http.server", "tempfile", "shutil", "subprocess"):
    importlib.import_module(library)
for module in HIDDEN_MODULES:
    sys.modules[module] = None
for owner, names in HIDDEN_NAMES.items():
    module, _, kind = owner.partition(".")
    found = importlib.import_module(module)
    found = getattr(found, kind) if kind else found
    for name in names:
        if hasattr(found, name):
            delattr(found, name)

for package in ("harness.runtime", "harness.demo", "services", "fakes"):
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, package + "."):
        if not (package == "fakes" and found.name.endswith(".__main__")):  # they start to serve
            importlib.import_module(found.name)
print("imported")
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_the_path_of_make_demo_imports_nothing_linux_only() -> None:
    done = run(PROGRAM)
    assert (done.returncode, done.stdout.strip()) == (0, "imported"), done.stderr


def test_a_linux_only_name_is_hidden_from_the_imports() -> None:
    """The check above has to fail for a module that uses such a name."""
    done = run(PROGRAM.replace('print("imported")', "import os; os.sched_getaffinity(0)"))
    assert "AttributeError" in done.stderr
