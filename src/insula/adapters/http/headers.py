"""What a request may carry: its method, URL and headers, checked before anything is sent."""

import base64
import re
from urllib.parse import unquote_to_bytes

import httpx2

from insula import __version__
from insula.engine.failures import StepFailure
from insula.engine.ports import HttpRequest

Headers = list[tuple[bytes, bytes]]

USER_AGENT = f"insula/{__version__}"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}\Z")
_FORBIDDEN_METHODS = frozenset({"CONNECT", "TRACE", "TRACK"})
_MAX_URL = 64 * 1024
_MAX_HEADERS = 256 * 1024

# Headers about the connection or the length are ours: a user's would contradict what is sent.
_OURS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_CREDENTIAL = re.compile(r"auth|cookie|token|secret|passw|session|signature|credential|key$")
_BODY = re.compile(r"content-")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def parse_url(text: str) -> httpx2.URL:
    """Read an absolute ``http`` or ``https`` URL. Raises ``StepFailure`` with code ``input``."""
    if len(text) > _MAX_URL:
        raise StepFailure(f"the URL has more than {_MAX_URL} characters", "input")
    try:
        text.encode()
        url = httpx2.URL(text.strip())
    except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
        reason = "it holds a lone surrogate" if isinstance(error, UnicodeError) else str(error)
        raise StepFailure(f"the URL cannot be used: {reason}", "input") from None
    if url.scheme not in ("http", "https"):
        raise StepFailure(
            f"the URL must start with http:// or https://, not with {url.scheme[:20]!r}", "input"
        )
    if not url.host or (url.port is not None and not 0 < url.port < 65536):
        raise StepFailure("the URL needs a host, and a port from 1 to 65535 if any", "input")
    return url


def check_method(method: str) -> str:
    """Return the method in upper case. Raises ``StepFailure`` with code ``input``."""
    method = method.upper()
    if not _TOKEN.match(method) or len(method) > 32 or method in _FORBIDDEN_METHODS:
        raise StepFailure(f"{method[:40]!r} is not a method that can be sent", "input")
    return method


def check_header(name: str, value: str) -> tuple[bytes, bytes]:
    """Return a header as bytes. Raises ``StepFailure`` with code ``input``."""
    if not _TOKEN.match(name):
        raise StepFailure(f"the header name {name[:80]!r} holds a character it may not", "input")
    value = value.strip(" \t")
    if _CONTROL.search(value):
        raise StepFailure(f"the header {name} holds a control character or a line break", "input")
    try:
        return name.encode(), value.encode("latin-1")
    except UnicodeEncodeError:
        pass
    try:
        return name.encode(), value.encode()
    except UnicodeEncodeError:
        raise StepFailure(f"the header {name} holds a lone surrogate", "input") from None


def build_headers(request: HttpRequest, url: httpx2.URL) -> Headers:
    """Return the user's headers without those that are ours, and what is missing.

    Raises:
        StepFailure: with code ``input``.
    """
    headers = [check_header(name, value) for name, value in request.headers]
    headers = [pair for pair in headers if pair[0].decode().lower() not in _OURS]
    present = {name.lower() for name, _ in headers}
    if url.userinfo and b"authorization" not in present:
        credentials = base64.b64encode(unquote_to_bytes(url.userinfo))
        headers.append((b"Authorization", b"Basic " + credentials))
    if request.idempotency_key is not None and b"idempotency-key" not in present:
        headers.append(check_header("Idempotency-Key", request.idempotency_key))
    for name, value in (("Accept", "*/*"), ("Accept-Encoding", "gzip, deflate")):
        if name.lower().encode() not in present:
            headers.append((name.encode(), value.encode()))
    if b"user-agent" not in present:
        headers.append((b"User-Agent", USER_AGENT.encode()))
    if sum(len(name) + len(value) for name, value in headers) > _MAX_HEADERS:
        raise StepFailure(f"the headers have more than {_MAX_HEADERS} bytes", "input")
    return headers


def without_credentials(headers: Headers) -> Headers:
    """Leave out what may identify or authorise: another origin is not to have it."""
    return [
        (name, value)
        for name, value in headers
        if name.lower() == b"idempotency-key" or not _CREDENTIAL.search(name.decode().lower())
    ]


def without_body(headers: Headers) -> Headers:
    """Leave out what describes a body: for a redirect that turns into GET."""
    return [pair for pair in headers if not _BODY.match(pair[0].decode().lower())]
