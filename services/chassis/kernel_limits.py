"""Limits of TCP: the kernel ends a connection whose other end is gone without a sign, as after a network partition.

Every pooled connection of HTTP, SQL and AMQP has them, so that no call waits for its own timeout. gRPC has its own.
"""

from __future__ import annotations

import socket

TCP_LIMITS = {
    "TCP_KEEPIDLE": 2,  # seconds without data, after which the kernel sends a probe
    "TCP_KEEPINTVL": 1,  # seconds between two probes
    "TCP_KEEPCNT": 3,  # probes without an answer
    "TCP_USER_TIMEOUT": 3000,  # milliseconds without an acknowledgement of sent data
}
_NUMBERS = {name: getattr(socket, name, None) for name in TCP_LIMITS}  # macOS lacks some of them
SOCKET_OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, number, TCP_LIMITS[name]) for name, number in _NUMBERS.items() if number is not None),
]
