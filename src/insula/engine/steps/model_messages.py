"""The settings of a *model* step, filled in: provider, messages and options."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from insula.engine.context import StepContext
from insula.engine.document import ModelProvider
from insula.engine.failures import StepFailure
from insula.engine.render import Renderer, Slot
from insula.engine.steps.model_files import Pieces, with_files
from insula.engine.template import compile_template, kind_of
from insula.kit import json

_MAX_ITERATIONS = 10
_HIGHEST_ITERATIONS = 100


@dataclass(frozen=True, slots=True)
class Filled:
    """What is asked of the model, with no template left in it."""

    provider: str
    model: str
    messages: tuple[Mapping[str, Any], ...]
    temperature: float | None
    response_format: Literal["text", "json"]
    max_tokens: int | None
    tools_parallel: bool
    tools_mode: Literal["auto", "none", "required"]
    max_iterations: int
    options: Mapping[str, Any]
    connection_id: str | None = None


async def fill_provider(context: StepContext, provider: ModelProvider) -> Filled:
    """Fill a model step's ``provider`` in.

    Raises:
        StepFailure: ``messages`` is a template that yields no list, or a template fails.
    """
    renderer = context.renderer()
    name = renderer.text(provider.provider)
    model = renderer.text(provider.model)
    messages = _take(renderer, provider)
    named = (provider.model_extra or {}).get("connection_id")
    connection = renderer.text(named) if isinstance(named, str) and named else None
    await renderer.evaluate()
    asked = _MAX_ITERATIONS if provider.max_iterations is None else provider.max_iterations
    return Filled(
        provider=renderer.filled_text(name).strip(),
        model=renderer.filled_text(model).strip(),
        messages=await with_files(context, _give(renderer, messages)),
        temperature=provider.temperature,
        response_format=provider.response_format or "text",
        max_tokens=None if provider.max_tokens is None else int(provider.max_tokens),
        tools_parallel=provider.tools_parallel is not False,
        tools_mode=provider.tools_mode or "auto",
        max_iterations=max(1, min(int(asked), _HIGHEST_ITERATIONS)),
        options=_options(provider),
        connection_id=None if connection is None else renderer.filled_text(connection).strip(),
    )


def _options(provider: ModelProvider) -> dict[str, Any]:
    """Return what stands in the settings besides: ``features``, and what only a provider knows."""
    options = {k: v for k, v in (provider.model_extra or {}).items() if k != "connection_id"}
    if provider.features is not None:
        options["features"] = provider.features.model_dump(exclude_unset=True)
    return options


def _take(renderer: Renderer, provider: ModelProvider) -> Slot | list[dict[str, Any]]:
    if isinstance(provider.messages, str):
        return _take_text(renderer, provider.messages)
    plain = [message.model_dump(exclude_unset=True) for message in provider.messages]
    return [_take_part(renderer, message) for message in plain]


def _take_text(renderer: Renderer, text: str) -> Slot | list[dict[str, Any]]:
    """Take messages in that are one text. With files in it they are made first, and filled in then:
    what a file becomes depends on where in a message it stands."""
    if not _has_files(text):
        return renderer.text(text, kind_of(text))
    written = _in_text(text) or ({"role": "user", "content": text},)
    return [_take_part(renderer, dict(message)) for message in written]


def _take_part(renderer: Renderer, part: dict[str, Any]) -> dict[str, Any]:
    """Take a message, part, tool call or result in; ``disable_variables`` leaves it as it is."""
    if part.get("disable_variables"):
        return {"literal": {k: v for k, v in part.items() if k != "disable_variables"}}
    taken: dict[str, Any] = {}
    for key, value in part.items():
        if key == "disable_variables":
            continue
        if key in ("role", "type", "id", "name"):
            taken[key] = {"literal": value}
        elif key in ("content", "tools") and isinstance(value, list):
            taken[key] = {"parts": [_take_inner(renderer, inner) for inner in value]}
        else:
            if key in ("content", "text") and _has_files(value):
                taken[key] = {"files": renderer.text(value)}
                continue
            is_url = key == "url" and isinstance(value, str) and not value.startswith("data:")
            slot = renderer.text(value, "url") if is_url else renderer.tree(value)
            taken[key] = {"tree": slot}
    return {"members": taken}


def _take_inner(renderer: Renderer, inner: Any) -> dict[str, Any]:
    if isinstance(inner, dict):
        return _take_part(renderer, inner)
    return {"tree": renderer.tree(inner)}


def _has_files(value: object) -> bool:
    return isinstance(value, str) and bool(compile_template(value).files)


def _give(renderer: Renderer, taken: Slot | list[dict[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    if isinstance(taken, Slot):
        return _messages(json.decode(renderer.filled_value(taken)))
    return tuple(_give_part(renderer, message) for message in taken)


def _give_part(renderer: Renderer, taken: dict[str, Any]) -> Any:
    if "literal" in taken:
        return taken["literal"]
    if "files" in taken:
        return Pieces(renderer.filled_parts(taken["files"]))
    if "parts" in taken:
        return [_give_part(renderer, part) for part in taken["parts"]]
    if "tree" in taken:
        return _told(renderer, taken["tree"])
    return {key: _give_part(renderer, value) for key, value in taken["members"].items()}


def _told(renderer: Renderer, tree: Any) -> Any:
    """Texts of messages are texts, whatever a hole's value was; other trees keep their types."""
    if isinstance(tree, Slot):
        return renderer.filled_text(tree)
    return json.decode(json.encode(renderer.filled_tree(tree)))


def _messages(value: Any) -> tuple[Mapping[str, Any], ...]:
    if isinstance(value, str):
        return _in_text(value) or ({"role": "user", "content": value},)
    if not _are_messages(value):
        raise StepFailure("messages must yield a list of messages with a role", "input")
    return tuple(value)


def _in_text(text: str) -> tuple[Mapping[str, Any], ...]:
    """Return the messages of which a text is the JSON. What people write may be JSON by chance."""
    try:
        value = json.decode(text)
    except json.InvalidJson:
        return ()
    return tuple(value) if _are_messages(value) else ()


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(m, dict) and "role" in m for m in value)
