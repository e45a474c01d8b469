"""HTTP sessions for the APIs outside the system: SMU (notifications) and Stripe."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

CONNECTIONS = 32
_INTERNAL = (".internal", ".local", ".localhost", ".svc")


def open_session(base_url: str) -> requests.Session:
    """Open a session for calls to `base_url`. Nothing is retried.

    The environment's proxy and certificates apply only to an address outside. A fake or a stand-in runs next to the
    service, and a proxy could not reach it. `.netrc` never applies, because it would replace the API key.
    """
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=CONNECTIONS, max_retries=0))
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
