"""Where in a step JavaScript and templates stand, and which settings must not be empty."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from insula.engine.document_steps import (
    AnyStep,
    BranchStep,
    BrowserStep,
    CodeStep,
    HttpRequestStep,
    ModelStep,
    ServiceStep,
    WorkflowStep,
)
from insula.engine.document_words import Path

_NAMELESS_MODELS = ("", "auto", "mock")
_LITERAL = ("role", "type", "id", "name", "disable_variables")


@dataclass(frozen=True, slots=True)
class Setting:
    """A script or a template of a step. In a ``message`` of a model, holes may name files; a script
    that ``waits`` may await."""

    path: Path
    text: str
    kind: Literal["script", "text", "json", "url", "header"]
    message: bool = False
    waits: bool = False


def settings(step: AnyStep) -> Iterator[Setting]:
    """Yield the scripts and templates of a step, without the blank ones."""
    return (setting for setting in _all(step) if setting.text.strip())


def _all(step: AnyStep) -> Iterator[Setting]:
    for name in ("conditional", "loop"):
        yield Setting((name,), getattr(step, name) or "", "script")
    match step:
        case CodeStep():
            yield Setting(("code",), step.code, "script", waits=True)
        case BranchStep():
            for key, condition in step.conditions.items():
                yield Setting(("conditions", key, "condition"), condition.condition or "", "script")
        case HttpRequestStep():
            yield from _request(step)
        case BrowserStep():
            yield Setting(("url",), step.url, "url")
            yield Setting(("wait_for_selector",), step.wait_for_selector or "", "text")
        case WorkflowStep():
            yield from _workflow(step)
        case ServiceStep():
            yield from _texts(step.service, ("service",))
        case ModelStep():
            yield from _model(step)


def _request(step: HttpRequestStep) -> Iterator[Setting]:
    yield Setting(("url",), step.url, "url")
    if isinstance(step.headers, str):
        yield Setting(("headers",), step.headers, "json")
    else:
        for name, value in (step.headers or {}).items():
            yield Setting(("headers", name), value, "header")
    yield Setting(("body",), step.body or "", "text")


def _workflow(step: WorkflowStep) -> Iterator[Setting]:
    for name in ("workflow_id", "workflow_version_id", "step_key", "input"):
        yield from _texts(getattr(step, name), (name,))


def _model(step: ModelStep) -> Iterator[Setting]:
    provider = step.provider
    yield Setting(("provider", "provider"), provider.provider, "text")
    yield Setting(("provider", "model"), provider.model, "text")
    connection = (provider.model_extra or {}).get("connection_id")
    if isinstance(connection, str):
        yield Setting(("provider", "connection_id"), connection, "text")
    path = ("provider", "messages")
    if isinstance(provider.messages, str):
        yield Setting(path, provider.messages, "text", message=True)
        return
    for index, message in enumerate(provider.messages):
        yield from _message(message, (*path, str(index)))


def _message(part: BaseModel, path: Path) -> Iterator[Setting]:
    """Yield a message's templates; where ``disable_variables`` stands there are none."""
    if getattr(part, "disable_variables", None):
        return
    for name in type(part).model_fields:
        value = getattr(part, name)
        if name in _LITERAL:
            continue
        if isinstance(value, list) and all(isinstance(item, BaseModel) for item in value):
            for index, item in enumerate(value):
                yield from _message(item, (*path, name, str(index)))
        else:
            yield from _texts(value, (*path, name), message=True)


def _texts(value: Any, path: Path, message: bool = False) -> Iterator[Setting]:
    """Yield the texts in nested objects and lists, in their order."""
    waiting: list[tuple[Path, Any]] = [(path, value)]
    while waiting:
        here, part = waiting.pop()
        if isinstance(part, str):
            yield Setting(here, part, "text", message)
        elif isinstance(part, dict):
            waiting += [((*here, str(key)), inner) for key, inner in reversed(part.items())]
        elif isinstance(part, list):
            numbered = [((*here, str(index)), inner) for index, inner in enumerate(part)]
            waiting += reversed(numbered)


def empty_settings(step: AnyStep) -> Iterator[tuple[Path, str]]:
    """Yield the settings without which a step cannot do its work, where they are blank."""
    match step:
        case CodeStep(code=code) if not code.strip():
            yield ("code",), "is empty; write the step's code"
        case HttpRequestStep(url=url) | BrowserStep(url=url) if not url.strip():
            yield ("url",), "is empty; give a URL"
        case WorkflowStep(workflow_id=workflow) if not (workflow or "").strip():
            yield ("workflow_id",), "is empty; name the workflow to run"
        case ServiceStep(service=service) if not service:
            yield ("service",), "is empty; choose a service and an action"
        case BranchStep(conditions=conditions):
            for key, condition in conditions.items():
                if not (condition.condition or "").strip():
                    yield ("conditions", key, "condition"), "is empty; write the condition"
        case ModelStep():
            yield from _empty_model(step)


def _empty_model(step: ModelStep) -> Iterator[tuple[Path, str]]:
    provider = step.provider
    name = provider.provider.strip()
    if not name:
        yield ("provider", "provider"), "is empty; choose a provider"
    if not provider.model.strip() and name not in _NAMELESS_MODELS:
        yield ("provider", "model"), "is empty; choose a model"
    messages = provider.messages
    if not (messages.strip() if isinstance(messages, str) else messages):
        yield ("provider", "messages"), "is empty; add a message"
