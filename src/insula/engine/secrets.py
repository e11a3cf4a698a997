"""The secrets of one run: handles in the scope, values in what leaves, masks on what comes back.

A handle is a name that only this run knows a value for. JavaScript and templates pass it around as
text; its letters survive URLs, JSON, headers and host names unchanged.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote

from insula.engine.failures import StepFailure
from insula.engine.masking import Masker
from insula.engine.ports import HttpRequest
from insula.kit import json

HANDLE: Final = re.compile(r"insulasecret[0-9a-f]{32}")
_HANDLE_BYTES: Final = re.compile(HANDLE.pattern.encode())
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\\]*")
_HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]-]*\Z")


Told = Callable[[str], None]
"""Is told the words that are for the secrets' own app alone, where the run is another's."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that only leaves. ``hosts``, if any, are those it may leave for: ``example.com``,
    ``example.com:8443``, ``*.example.com``."""

    key: str
    handle: str
    value: str = field(repr=False)
    hosts: tuple[str, ...] = ()

    def may_go_to(self, host: str, port: int) -> bool:
        """Say whether a request to this host may carry it."""
        return not self.hosts or any(_admits(entry, host.lower(), port) for entry in self.hosts)


def _admits(entry: str, host: str, port: int) -> bool:
    name, only = _parts(entry)
    return only in (None, port) and _is_below(name, host)


def covers(held: str, wanted: str) -> bool:
    """Say whether ``held``, an entry of hosts, lets a secret go wherever ``wanted`` does."""
    name, port = _parts(held)
    other, its_port = _parts(wanted)
    return port in (None, its_port) and _is_below(name, other)


def _parts(entry: str) -> tuple[str, int | None]:
    """Split an entry of hosts into its name and its port, if it has one."""
    name, colon, number = entry.lower().rpartition(":")
    if colon and number.isdigit() and not name.endswith(":"):
        return name.strip("[]"), int(number)
    return entry.lower().strip("[]"), None


def _is_below(name: str, host: str) -> bool:
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


@dataclass(frozen=True, slots=True)
class Revealed:
    """A request with its values put in, and the secrets that it carries."""

    request: HttpRequest = field(repr=False)
    used: tuple[Secret, ...] = ()
    in_url: bool = False
    told: Told | None = field(default=None, repr=False)

    def check(self, host: str, port: int) -> None:
        """Refuse to send it where one of them may not go.

        Raises:
            StepFailure: ``egress``, naming the host, and to the secret's app, which one it is and
                where it may go.
        """
        _check(self.used, host, port, self.told)


def _check(used: Iterable[Secret], host: str, port: int, told: Told | None) -> None:
    for secret in used:
        if not secret.may_go_to(host, port):
            allowed = ", ".join(secret.hosts)
            words = f"The secret {secret.key} may not be sent to {host}: its hosts are {allowed}"
            if told is not None:
                told(words)
                words = f"A secret of the workflow's app may not be sent to {host}"
            raise StepFailure(words, "egress")


class Secrets:
    """All secrets of one run. ``masker`` covers their values; ``told`` is given for a run of an app
    that is not to know of them."""

    def __init__(
        self,
        secrets: Sequence[Secret],
        masker: Masker | None = None,
        told: Told | None = None,
    ) -> None:
        self._told = told
        self._by_handle = {secret.handle: secret for secret in secrets}
        self._bound = tuple(secret for secret in secrets if secret.hosts)
        self.masker = masker if masker is not None else Masker(s.value for s in secrets)

    def reveal(self, request: HttpRequest) -> Revealed:
        """Put the values in: percent-encoded in the URL, escaped in JSON, as they are in headers.

        A URL may begin with a secret, which is then taken as the beginning of the URL.

        Raises:
            StepFailure: ``input``, a value stands where the host does and is none.
        """
        used: dict[str, Secret] = {}
        url = self._url(request.url, used)
        in_url = bool(used)
        headers = tuple((name, self._text(value, used)) for name, value in request.headers)
        body = request.body
        if body is not None and _HANDLE_BYTES.search(body):
            body = self._body(body, _content_type(request), used)
        if not used:
            return Revealed(request)
        shown = replace(request, url=url, headers=headers, body=body)
        return Revealed(shown, tuple(used.values()), in_url, self._told)

    def check_redirect(self, host: str, port: int, parts: Iterable[bytes]) -> None:
        """Refuse to follow a redirect with a secret that may not go there.

        Raises:
            StepFailure: ``egress``, as ``Revealed.check``.
        """
        if self._bound:
            held = tuple(parts)
            _check(
                (s for s in self._bound if any(map(Masker([s.value]).spans, held))),
                host,
                port,
                self._told,
            )

    def failure(self, failure: StepFailure) -> StepFailure:
        """Return a failure with every value covered in what it says and carries."""
        masker = self.masker
        return StepFailure(
            masker.text(failure.message),
            failure.code,
            None if failure.logs is None else masker.json(failure.logs),
            None if failure.output is None else masker.json(failure.output),
            failure.credits,
        )

    def _text(self, text: str, used: dict[str, Secret]) -> str:
        return HANDLE.sub(lambda match: self._value(match[0], used), text)

    def _value(self, handle: str, used: dict[str, Secret]) -> str:
        secret = self._by_handle.get(handle)
        if secret is None:  # of another run, or of another app: a text like any other
            return handle
        used[handle] = secret
        return secret.value

    def _encoded(self, text: str, used: dict[str, Secret]) -> str:
        return HANDLE.sub(lambda match: _percent(self._value(match[0], used)), text)

    def _url(self, text: str, used: dict[str, Secret]) -> str:
        text = text.strip()
        if HANDLE.search(text) is None:
            return text
        if (first := HANDLE.match(text)) is not None:
            return self._value(first[0], used).strip() + self._encoded(text[first.end() :], used)
        origin = _ORIGIN.match(text)
        if origin is None:
            return self._encoded(text, used)
        head, at, host = origin[0].rpartition("@")
        scheme, slashes, user = head.partition("://") if at else ("", "", "")
        if not at:
            scheme, slashes, host = origin[0].partition("://")
        rest = self._encoded(text[origin.end() :], used)
        return f"{scheme}{slashes}{self._encoded(user, used)}{at}{self._host(host, used)}{rest}"

    def _host(self, text: str, used: dict[str, Secret]) -> str:
        host = self._text(text, used)
        if not _HOST.match(host):
            raise StepFailure(
                "A secret stands in the URL where its host does, and is no host name", "input"
            )
        return host

    def _body(self, body: bytes, content_type: str, used: dict[str, Secret]) -> bytes:
        def value(match: re.Match[bytes]) -> bytes:
            text = self._value(match[0].decode(), used)
            if as_json:
                return json.encode(text)[1:-1]
            return (_percent(text) if as_form else text).encode()

        as_json = "json" in content_type or (not content_type and _is_json(body))
        as_form = "x-www-form-urlencoded" in content_type
        return _HANDLE_BYTES.sub(value, body)


def _percent(text: str) -> str:
    return text if HANDLE.fullmatch(text) else quote(text, safe="")


def _content_type(request: HttpRequest) -> str:
    return next((v.lower() for name, v in request.headers if name.lower() == "content-type"), "")


def _is_json(body: bytes) -> bool:
    if body.lstrip()[:1] not in (b"{", b"[", b'"'):
        return False
    try:
        json.decode(body)
    except json.InvalidJson:
        return False
    return True
