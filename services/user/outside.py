"""HTTP sessions for the APIs outside the system: SMU (notifications) and Stripe."""

from __future__ import annotations

import threading
from ipaddress import ip_address
from socket import SHUT_RDWR
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from services.chassis.deadlines import Deadline
from services.chassis.kernel_limits import SOCKET_OPTIONS

CONNECTIONS = 64
_SOCKET_OPTIONS = [*HTTPConnection.default_socket_options, *SOCKET_OPTIONS]
_INTERNAL = (".internal", ".local", ".localhost", ".svc")


def open_session(base_url: str) -> requests.Session:
    """Open a session for calls to `base_url`. Nothing is retried.

    A call ends after the sum of its two timeouts, also if the answer comes byte by byte.

    The environment's proxy and certificates apply only to an address outside. A fake or a stand-in runs next to the
    service, and a proxy could not reach it. `.netrc` never applies, because it would replace the API key.
    """
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter(pool_connections=1, pool_maxsize=CONNECTIONS, max_retries=0))
    if not is_internal(base_url):
        environment = session.merge_environment_settings(base_url, {}, None, None, None)
        session.proxies.update(environment["proxies"])
        session.verify = environment["verify"]
    session.trust_env = False  # otherwise `requests` looks up the environment at each call, which costs the most
    return session


def is_internal(url: str) -> bool:
    """Return whether the address is on this machine, in the cluster or in a private network."""
    host = urlsplit(url).hostname or ""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(_INTERNAL)


class Adapter(HTTPAdapter):
    """Sends a request and reads its whole answer within the sum of the two timeouts."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Create the pools, whose connections note when they are in use."""
        super().init_poolmanager(*arguments, socket_options=_SOCKET_OPTIONS, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        """Create the pools of a proxy."""
        manager = super().proxy_manager_for(*arguments, socket_options=_SOCKET_OPTIONS, **options)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """Send a request. `timeout` is a pair. Raises requests.RequestException.

        After the sum of both timeouts, it is a requests.ReadTimeout, however the call ended.
        """
        _call.connection = None
        connect, read = options["timeout"]
        failure = None
        with Deadline(_InUse(_call), connect + read) as deadline:
            try:
                response = super().send(request, *arguments, **options)
                response.content  # noqa: B018 - reads the body within the deadline
            except requests.RequestException as error:
                failure = error
        if deadline.is_overdue:  # the end of file may look like the end of the answer, or like a lost connection
            raise requests.ReadTimeout(f"no complete answer within {connect + read:g} s") from failure
        if failure is not None:
            raise failure
        return response


class _InUse:
    """The connection of one thread's call."""

    def __init__(self, call: threading.local) -> None:
        self._state = call.__dict__  # that of the calling thread

    def shut_down(self) -> None:
        """Shut down the socket from another thread. Raises OSError."""
        sock = getattr(self._state.get("connection"), "sock", None)
        if sock is not None:
            sock.shutdown(SHUT_RDWR)


_call = threading.local()


class _Connection(HTTPConnection):
    def request(self, *arguments: Any, **options: Any) -> None:
        _call.connection = self
        super().request(*arguments, **options)


class _TlsConnection(HTTPSConnection):
    def request(self, *arguments: Any, **options: Any) -> None:
        _call.connection = self
        super().request(*arguments, **options)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection
