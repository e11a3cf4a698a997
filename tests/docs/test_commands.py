"""The reference of the command line names every verb, every option and every exit code."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from insula.cli.failures import ExitCode
from insula.cli.main import application

from .pages import REFERENCE

COMMANDS = (REFERENCE / "cli.md").read_text("utf-8")


def verbs(command: Any, name: str = "insula") -> Iterator[tuple[str, Any]]:
    """Yield each command that does something, with its full name."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word, child in inner.items():
        yield from verbs(child, f"{name} {word}")


ALL = dict(verbs(get_command(application)))


@pytest.mark.parametrize("verb", ALL)
def test_every_verb_stands_there_with_its_arguments_and_options(verb: str) -> None:
    found = re.search(rf"`({re.escape(verb)}(?: [^`]*)?)`", COMMANDS)
    assert found, f"{verb} is not in cli.md"
    usage = found.group(1)
    missing = []
    for parameter in ALL[verb].params:
        if parameter.param_type_name == "argument":
            if str(parameter.metavar) not in usage:
                missing.append(parameter.metavar)
        elif "--help" not in parameter.opts:
            missing += [
                option for option in parameter.opts if len(option) > 2 and option not in usage
            ]
    assert not missing


def test_no_verb_stands_there_that_is_gone() -> None:
    told = re.findall(r"^`(insula [a-z ]*[a-z])(?=[ `\n])", COMMANDS, re.MULTILINE)
    assert {verb.strip() for verb in told} == set(ALL)


def test_every_exit_code_stands_there() -> None:
    text = (REFERENCE / "exit-codes.md").read_text("utf-8")
    told = re.findall(r"^\| (\d+) \| (\w+) \|", text, re.MULTILINE)
    assert told == [(str(code.value), code.name) for code in ExitCode]
