"""The one egress policy: which addresses outgoing requests may connect to.

Judged is the address that is about to be connected to, never the name alone. Public addresses are
allowed; what an operator lists in ``INSULA_EGRESS_ALLOW`` is allowed besides.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from insula.adapters.http.addresses import Address, is_public, parse_address, unwrapped
from insula.engine.failures import StepFailure
from insula.settings import SettingsError

# Ports on which other protocols would take an HTTP request for their own commands, as browsers
# refuse them too (https://fetch.spec.whatwg.org/#port-blocking).
_FOREIGN_PORTS = frozenset(
    map(
        int,
        re.findall(
            r"\d+",
            """
            0 1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109
            110 111 113 115 117 119 123 135 137 139 143 161 179 389 427 465 512 513 514 515 526 530
            531 532 540 548 554 556 563 587 601 636 989 990 993 995 1719 1720 1723 2049 3659 4045
            4190 5060 5061 6000 6379 6566 6665 6666 6667 6668 6669 6679 6697 10080 11211
            """,
        ),
    )
)


def normal_host(host: str) -> str:
    """Return a host as policies compare it: lower case, ASCII, no final dot, no brackets."""
    host = host.strip("[]").rstrip(".").lower()
    try:
        return host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError:
        return host


@dataclass(frozen=True, slots=True)
class _Rule:
    """One entry of the list; what is ``None`` matches everything."""

    host: str | None = None
    network: IPv4Network | IPv6Network | None = None
    port: int | None = None

    def matches(self, host: str, port: int, address: Address) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return unwrapped(address) in self.network
        if self.host is None:
            return True
        if self.host.startswith("*."):
            return host.endswith(self.host[1:])
        return host == self.host


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split ``host:port``, ``[v6]:port`` or ``cidr:port``; a bare IPv6 address has no port."""
    head, colon, tail = entry.rpartition(":")
    if not colon or (":" in head and not head.endswith("]")):
        return entry, None
    if not (tail.isascii() and tail.isdigit() and 0 < int(tail) < 65536):
        raise ValueError(f"{tail!r} is not a port from 1 to 65535")
    return head, int(tail)


def _parse_rule(entry: str) -> _Rule:
    where, port = _split_port(entry)
    where = where.strip("[]")
    if where == "*":
        return _Rule(port=port)
    if "/" in where or parse_address(where) is not None:
        return _Rule(network=ip_network(where, strict=False), port=port)
    host = normal_host(where)
    if not host or any(character in host for character in " /?#@%\\:"):
        raise ValueError(f"{where!r} is no host, address, CIDR or *")
    return _Rule(host=host, port=port)


class EgressPolicy:
    """What may be connected to: public addresses, and what the operator lists.

    Entries: ``*``, ``host``, ``*.domain``, an address, a CIDR, each with ``:port`` if wanted.
    A host entry trusts that name, whatever it resolves to.

    Raises:
        SettingsError: an entry is none of these.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self.entries = tuple(entry.strip() for entry in allow if entry.strip())
        self._rules = [self._rule(entry) for entry in self.entries]

    @staticmethod
    def _rule(entry: str) -> _Rule:
        try:
            return _parse_rule(entry)
        except ValueError as error:
            raise SettingsError(f"INSULA_EGRESS_ALLOW: the entry {entry!r}: {error}") from error

    def also(self, *entries: str) -> "EgressPolicy":
        """Return a policy that allows these entries too."""
        return EgressPolicy((*self.entries, *entries))

    def permits(self, host: str, port: int, address: Address) -> bool:
        """Say whether a connection to this address, asked for under this host, is allowed."""
        host = normal_host(host)
        if any(rule.matches(host, port, address) for rule in self._rules):
            return True
        return port not in _FOREIGN_PORTS and is_public(address)

    def permitted(self, host: str, port: int, addresses: Sequence[str]) -> list[str]:
        """Return those of the resolved addresses that may be connected to.

        Raises:
            StepFailure: with code ``egress``, if there is none. The addresses are not told, so
                that nobody maps an inner network by its names.
        """
        kept = []
        for text in addresses:
            address = parse_address(text)
            if address is not None and self.permits(host, port, address):
                kept.append(text)
        if not kept:
            shown = f"[{host}]" if ":" in host else host
            why = (
                f"port {port} belongs to another protocol"
                if port in _FOREIGN_PORTS
                else "it does not lead to a public address"
            )
            raise StepFailure(
                f"the request to {shown}:{port} was refused by the egress policy: {why}. "
                f"An operator can allow it with INSULA_EGRESS_ALLOW={shown}:{port}",
                code="egress",
            )
        return kept
