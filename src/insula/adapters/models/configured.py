"""Which providers an operator has configured, read from the environment once at the start."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx2

from insula.settings import SettingsError

_KNOWN = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "xai": ("https://api.x.ai/v1", "XAI_API_KEY"),
}
_COMPATIBLE = {
    "anthropic": "https://api.anthropic.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
}
_SETTING = re.compile(r"INSULA_PROVIDER_([A-Z0-9_]+)_(URL|KEY)\Z")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A provider that can be called. Without a key none is sent."""

    name: str
    url: str
    key: str | None = field(repr=False)
    operators: bool
    """Whether the operator named the URL: then it may be reached whatever the egress policy."""

    @property
    def place(self) -> str:
        """Return ``host:port``, as the egress policy takes it."""
        url = httpx2.URL(self.url)
        host = f"[{url.host}]" if ":" in url.host else url.raw_host.decode()
        return f"{host}:{url.port or (443 if url.scheme == 'https' else 80)}"


def known_url(name: str) -> str | None:
    """Return the base URL of a provider's OpenAI-compatible API, if it is everybody's."""
    return _KNOWN[name][0] if name in _KNOWN else _COMPATIBLE.get(name)


def provider_name(name: str) -> str:
    """Return a provider's name as it is compared: lower case, ``_`` for all that is no letter."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def read_endpoints(environ: Mapping[str, str]) -> dict[str, Endpoint]:
    """Read ``INSULA_PROVIDER_<NAME>_URL`` and ``…_KEY``, and the known providers' own variables.

    The known ones come first, in the order openai, groq, openrouter, xai; then the others by name.

    Raises:
        SettingsError: a URL cannot be used; names the setting.
    """
    found = {match[1].lower() for name in environ if (match := _SETTING.match(name))}
    endpoints: dict[str, Endpoint] = {}
    for name in [*_KNOWN, *sorted(found - set(_KNOWN))]:
        setting = f"INSULA_PROVIDER_{name.upper()}"
        default_url, key_name = _KNOWN.get(name, ("", ""))
        key = environ.get(f"{setting}_KEY") or environ.get(key_name) or None
        url = environ.get(f"{setting}_URL", "")
        if not url and name == "openai":
            url = environ.get("OPENAI_BASE_URL", "")
        if url:
            _check_url(f"{setting}_URL", url)
        elif not key:
            continue
        elif not default_url:
            raise SettingsError(f"{setting}_KEY is set, but {setting}_URL is not: set it too")
        endpoints[name] = Endpoint(name, (url or default_url).rstrip("/"), key, bool(url))
    return endpoints


def _check_url(setting: str, text: str) -> None:
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError):
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise SettingsError(f"{setting} must be a base URL such as https://host/v1, without a user")


def how_to_configure(name: str) -> str:
    """Say what an operator sets for a provider that is not configured."""
    setting = f"INSULA_PROVIDER_{(provider_name(name) or 'NAME').upper()}"
    if name in _KNOWN:
        return f"set {_KNOWN[name][1]} or {setting}_KEY"
    return (
        f"set {setting}_URL to the base URL of its OpenAI-compatible API and {setting}_KEY "
        "to its key"
    )
