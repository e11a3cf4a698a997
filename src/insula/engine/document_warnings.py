"""What a draft may be saved with and a version may not be deployed with."""

from collections.abc import Iterator
from dataclasses import dataclass

from insula.engine.document_ancestors import Ancestry
from insula.engine.document_settings import Setting, empty_settings, settings
from insula.engine.document_steps import Document, NoteStep
from insula.engine.document_words import Path, Problem, problem
from insula.engine.scripts import CANNOT_WAIT, SCOPE_NAMES, analyse
from insula.engine.scripts_globals import GLOBALS
from insula.engine.template import compile_template
from insula.engine.triggers import is_trigger, trigger_problems


def warnings(document: Document) -> list[Problem]:
    """Return what must be mended before a deploy.

    Scripts and templates that do not parse, references to steps that are not there or not before
    this one, empty settings, and triggers that cannot start a run. Of names that nobody declares
    only those count that are read like a step, ``NAME.output``.
    """
    ancestry = Ancestry.of(document)
    found: list[Problem] = []
    for place, step in enumerate(document.steps):
        path = ("steps", str(place))
        found += (problem((*path, *inner), "empty", words) for inner, words in empty_settings(step))
        found += _tool_problems(document, ancestry, place, path)
        for setting in settings(step):
            found += _setting_problems(setting, ancestry, step.key, path)
    found += trigger_problems(document.steps)
    return found


def _tool_problems(
    document: Document, ancestry: Ancestry, place: int, path: Path
) -> Iterator[Problem]:
    for inner, key in ancestry.tools(document.steps[place]):
        target = ancestry.steps.get(key)
        if target is None:
            message = f'"{key[:40]}" is no step of this workflow; name one, or external:NAME'
            yield Problem((*path, *inner), "missing_step", message)
        elif is_trigger(target):
            message = f'"{key[:40]}" starts runs and cannot serve as a tool'
            yield Problem((*path, *inner), "trigger", message)
        elif target.type in ("note", "input", "branch"):
            message = f'"{key[:40]}" is of type {target.type} and cannot serve as a tool'
            yield Problem((*path, *inner), "tool_type", message)


@dataclass(frozen=True, slots=True)
class _Mentioned:
    """The names in one setting, and those of them that are read like steps."""

    names: frozenset[str]
    references: frozenset[str]
    problem: tuple[str, str] | None = None


def _setting_problems(
    setting: Setting, ancestry: Ancestry, key: str, path: Path
) -> Iterator[Problem]:
    place = (*path, *setting.path)
    mentioned = _mentioned(setting)
    if mentioned.problem is not None:
        yield problem(place, *mentioned.problem)
    for name in sorted(mentioned.names):
        words = _reference_problem(name, mentioned, ancestry, key)
        if words is not None:
            yield problem(place, *words)


def _mentioned(setting: Setting) -> _Mentioned:
    if setting.kind == "script":
        script = analyse(setting.text)
        failed = ("script", f"does not parse: {script.error}") if script.error else None
        if script.awaits and not setting.waits:
            failed = ("script", CANNOT_WAIT)
        return _Mentioned(script.names, script.references, failed)
    template = compile_template(setting.text, setting.kind)
    failed = ("template", f"does not parse: {template.error}") if template.error else None
    if failed is None and template.files and not setting.message:
        suffix = template.files[0].suffix
        failed = ("template", f"uses :{suffix}, which can stand in model messages only")
    return _Mentioned(template.names, template.references, failed)


def _reference_problem(
    name: str, mentioned: _Mentioned, ancestry: Ancestry, key: str
) -> tuple[str, str] | None:
    if name in SCOPE_NAMES:
        return None
    target = ancestry.steps.get(name)
    if target is None:
        if name not in mentioned.references or name in GLOBALS:
            return None
        return "missing_step", f'refers to "{name}", which is no step of this workflow'
    if isinstance(target, NoteStep):
        return "not_ancestor", f'refers to "{name}", which is a note and never runs'
    if not ancestry.sees(key, name):
        words = f'refers to "{name}", from which no path leads to this step; connect them'
        return "not_ancestor", words
    return None
