"""The models behind ``engine.ports.Models``: which provider answers, and within what time."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insula.adapters.guarded import masked_stream
from insula.adapters.http.client import HttpClient
from insula.adapters.http.egress import EgressPolicy
from insula.adapters.http.pool import Pool
from insula.adapters.models.configured import (
    Endpoint,
    how_to_configure,
    provider_name,
    read_endpoints,
)
from insula.adapters.models.mock import Mock
from insula.engine.failures import StepFailure
from insula.engine.masking import Masker
from insula.engine.ports import (
    Activity,
    Credentials,
    HttpRequest,
    ModelDelta,
    ModelReply,
    ModelRequest,
)
from insula.engine.secrets import Secrets
from insula.settings import SettingsError

if TYPE_CHECKING:
    from insula.adapters.models.conversation import AppsDownload
    from insula.adapters.models.openai_compatible import OpenAICompatible

_MAX_FILE = 64 * 1024 * 1024
_FILE_SECONDS = 60.0


class ModelProviders:
    """Implements ``engine.ports.Models`` for ``mock`` and all that is configured in ``environ``.

    Reads ``INSULA_PROVIDER_<NAME>_URL`` and ``_KEY``, the known providers' own variables,
    ``INSULA_MODEL_DEFAULT`` and ``INSULA_MOCK_FILE``. ``download`` fetches the URLs of file parts
    (by default over HTTP under the same policy). Raises ``SettingsError`` naming a bad one.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        environ: Mapping[str, str],
        download: "AppsDownload | None" = None,
    ) -> None:
        self._policy = policy
        self._endpoints = read_endpoints(environ)
        self._default = environ.get("INSULA_MODEL_DEFAULT", "").strip()
        if self._default and "/" not in self._default:
            raise SettingsError("INSULA_MODEL_DEFAULT must be provider/model, such as openai/gpt-5")
        file = environ.get("INSULA_MOCK_FILE")
        self._mock = Mock(Path(file) if file else None)
        self._http: HttpClient | None = None
        self._download = download or self._fetch
        self._pools: list[Pool] = []
        self._providers: dict[str, OpenAICompatible] = {}
        self._loading = asyncio.Lock()
        self._module: Any = None
        self._apps_pool: Pool | None = None

    def identify(
        self, provider: str, model: str, connection_id: str | None = None
    ) -> tuple[str, str]:
        """Return the provider and model that will answer (``auto`` resolved).

        Raises:
            StepFailure: with code ``provider``, saying how to configure what is not.
        """
        if connection_id is not None:
            raise StepFailure(f"there is no connection {connection_id[:40]!r} here", "provider")
        name = provider_name(provider)
        if name in ("auto", ""):
            return self._automatic(model)
        if name != "mock" and name not in self._endpoints:
            raise StepFailure(
                f"the provider {provider!r} is not configured: {how_to_configure(name)}",
                "provider",
            )
        if not model:
            raise StepFailure(f"the step names no model of {provider!r}", "provider")
        return name, model

    def _automatic(self, model: str) -> tuple[str, str]:
        if self._default:
            provider, _, named = self._default.partition("/")
            if provider_name(provider) in ("auto", ""):
                raise StepFailure("INSULA_MODEL_DEFAULT must name a provider", "provider")
            return self.identify(provider, named)
        if not self._endpoints:
            raise StepFailure(
                "the provider is auto, and none is configured: set INSULA_MODEL_DEFAULT to "
                f"provider/model, or {how_to_configure('openai')}",
                "provider",
            )
        if model in ("auto", ""):
            raise StepFailure(
                "the provider is auto and the step names no model: "
                "name one, or set INSULA_MODEL_DEFAULT to provider/model",
                "provider",
            )
        return next(iter(self._endpoints)), model

    async def stream(
        self, request: ModelRequest, activity: Activity
    ) -> AsyncGenerator[ModelDelta | ModelReply, None]:
        """Yield deltas, then one reply. Cancelled, its socket is closed before it comes out.

        Raises:
            StepFailure: ``provider``, ``rate_limited``, ``timeout``, ``input``, ``not_available``,
                and what there is where nothing answers: ``dns``, ``refused``, ``tls``, ``network``.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.timeout
        events = self._events(request, activity)
        try:
            async with aclosing(events):
                while True:
                    # Between the deltas the consumer's time passes, not under this clock's scope:
                    # a timeout that spans a ``yield`` would strike the consumer.
                    if loop.time() >= deadline:
                        raise TimeoutError
                    async with asyncio.timeout_at(deadline):
                        event = await anext(events, None)
                    if event is None:
                        return
                    yield event
        except TimeoutError:
            raise StepFailure(
                f"{request.provider} did not answer completely within {request.timeout:g} s",
                "timeout",
            ) from None

    async def _events(
        self, request: ModelRequest, activity: Activity
    ) -> AsyncGenerator[ModelDelta | ModelReply, None]:
        credentials = request.credentials
        if credentials is None:
            name, model = self.identify(request.provider, request.model, request.connection_id)
            request = replace(request, provider=name, model=model)
        if credentials is not None:
            source = (await self._connected(credentials)).stream(request, activity)
            key = credentials.key
        elif name == "mock":
            source, key = self._mock.stream(request), None
        else:
            source = (await self._provider(name)).stream(request, activity)
            key = self._endpoints[name].key
        if masker := Masker([key or ""]):  # whatever else the run masks, the key stays here
            source = masked_stream(source, request, Secrets((), masker))
        async with aclosing(source):
            async for event in source:
                yield event

    async def _connected(self, credentials: Credentials) -> "OpenAICompatible":
        """Return what speaks through an app's connection, under the policy for everybody."""
        async with self._loading:
            module = await self._loaded()
            if self._apps_pool is None:
                self._apps_pool = Pool(self._policy)
                self._pools.append(self._apps_pool)
        endpoint = Endpoint(credentials.provider, credentials.url, credentials.key, operators=False)
        made: OpenAICompatible = module.OpenAICompatible(endpoint, self._apps_pool, self._download)
        return made

    async def _loaded(self) -> Any:
        if self._module is None:
            self._module = await asyncio.to_thread(_load)
        return self._module

    async def _provider(self, name: str) -> "OpenAICompatible":
        async with self._loading:
            if name not in self._providers:
                module = await self._loaded()
                endpoint = self._endpoints[name]
                policy = self._policy.also(endpoint.place) if endpoint.operators else self._policy
                pool = Pool(policy)
                self._pools.append(pool)
                self._providers[name] = module.OpenAICompatible(endpoint, pool, self._download)
            return self._providers[name]

    async def _fetch(self, app_id: str, url: str) -> tuple[bytes, str]:
        if self._http is None:
            self._http = HttpClient(self._policy)
        request = HttpRequest("GET", url, timeout=_FILE_SECONDS, max_bytes=_MAX_FILE, app_id=app_id)
        answer = await self._http.send(request, Activity("fetching a file for the model", 0))
        if not 200 <= answer.status < 300:
            raise StepFailure(f"the file of a message answered {answer.status}", "input")
        types = [value for key, value in answer.headers if key.lower() == "content-type"]
        return answer.body, (types[0] if types else "application/octet-stream").partition(";")[0]

    async def close(self) -> None:
        """Close the connections that are at rest; those in use close with their tasks."""
        for pool in self._pools:
            await pool.close()
        if self._http is not None:
            await self._http.close()


def _load() -> Any:
    """Import the library and go through one round with it: over a second, on a thread."""
    module = import_module("insula.adapters.models.openai_compatible")
    endpoint = Endpoint("rehearsal", "http://localhost", None, operators=True)
    asyncio.run(module.OpenAICompatible(endpoint, None, None).rehearse())
    return module
