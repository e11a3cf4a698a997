"""Which of an app's connections answers a *model* step, and its credentials on the way there."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import structlog

from insula.adapters.models.configured import provider_name
from insula.engine.failures import StepFailure
from insula.engine.ports import (
    Activity,
    Credentials,
    ModelDelta,
    ModelReply,
    ModelRequest,
    Models,
)

_FAILED = "the model provider that the workflow is connected with failed; its app is told why"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Providers:
    """The model providers that an app is connected with, oldest first, and its default."""

    connected: tuple[Credentials, ...] = field(default=(), repr=False)
    default: str | None = None
    """``provider/model`` for ``auto``."""


class ConnectedModels:
    """The models of an app's workflows: its own connections first, then what the operator set.

    ``told`` says whether the run may see which connection answered, and how one failed: only its
    owner's may.
    """

    def __init__(self, models: Models, providers: Providers, *, told: bool) -> None:
        self._models = models
        self._providers = providers
        self._told = told

    def identify(
        self, provider: str, model: str, connection_id: str | None = None
    ) -> tuple[str, str]:
        """Return the provider and model that will answer.

        Raises:
            StepFailure: ``provider``, there is none of this name, or no connection of this id.
        """
        name, model, _ = self._chosen(provider, model, connection_id)
        return name, model

    async def stream(
        self, request: ModelRequest, activity: Activity
    ) -> AsyncGenerator[ModelDelta | ModelReply, None]:
        """Yield deltas, then one reply, as the port says."""
        name, model, used = self._chosen(request.provider, request.model, request.connection_id)
        asked = replace(request, provider=name, model=model, credentials=used, connection_id=None)
        try:
            async with aclosing(self._models.stream(asked, activity)) as stream:
                async for piece in stream:
                    if used is not None and self._told and isinstance(piece, ModelReply):
                        yield replace(
                            piece,
                            connection_id=used.connection_id,
                            connection_type=used.connection_type,
                        )
                    else:
                        yield piece
        except StepFailure as failure:
            if used is None or self._told:
                raise
            _log.warning(
                "connection.failed", connection_id=used.connection_id, reason=failure.message
            )
            # The words name the owner's address, or are the provider's to the owner.
            raise StepFailure(_FAILED, failure.code, credits=failure.credits) from None

    def _chosen(
        self, provider: str, model: str, connection_id: str | None
    ) -> tuple[str, str, Credentials | None]:
        connected = self._providers.connected
        if connection_id:
            used = next((one for one in connected if one.connection_id == connection_id), None)
            if used is None:
                raise StepFailure(
                    f"the workflow's app has no connection {connection_id[:40]!r} with a model "
                    "provider; connect it, or name another one",
                    "provider",
                )
            return used.provider, _named(model, used.provider), used
        name = provider_name(provider)
        if name in ("auto", ""):
            return self._automatic(model)
        used = next((one for one in connected if one.provider == name), None)
        if used is not None:
            return name, _named(model, name), used
        return *self._models.identify(provider, model), None

    def _automatic(self, model: str) -> tuple[str, str, Credentials | None]:
        if self._providers.default is not None:
            provider, _, named = self._providers.default.partition("/")
            if provider_name(provider) in ("auto", "") or not named:
                raise StepFailure(
                    "the app's settings.model_default must be provider/model", "provider"
                )
            return self._chosen(provider, named, None)
        if self._providers.connected and model not in ("auto", ""):
            used = self._providers.connected[0]
            return used.provider, model, used
        return *self._models.identify("auto", model), None


def _named(model: str, provider: str) -> str:
    if not model:
        raise StepFailure(f"the step names no model of {provider!r}", "provider")
    return model
