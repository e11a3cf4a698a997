"""Ports of the loopback for servers that keep theirs through restarts."""

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_FOUND_WITHIN = 100


def free_port() -> int:
    """Return a port that nobody listens on now, and that the system gives to no connection that
    goes out: one of those would keep a server from its own port when it comes back."""
    first = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    for _ in range(_FOUND_WITHIN):
        port = random.SystemRandom().randrange(_LOWEST, max(first, _LOWEST + 1_000))
        with socket.socket() as held:
            try:
                held.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port of the loopback is free")
