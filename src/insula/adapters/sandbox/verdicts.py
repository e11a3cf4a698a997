"""The words for evaluations that end badly, and the check of what a worker sent.

Each limit's message names the limit, its value and its setting. A worker may have been taken over,
so nothing it says is used before it was checked.
"""

import re
from typing import Annotated

import msgspec

from insula.adapters.sandbox.frames import Failed
from insula.adapters.sandbox.process import Ended, Worker
from insula.engine.failures import StepFailure
from insula.engine.ports import Evaluation, Limits
from insula.kit.json import Raw
from insula.kit.json_bounds import check_numbers

_MIB = 1024 * 1024
_SLACK = 256
"""Levels of nesting that an output must leave to whatever is put around it."""
_check = msgspec.json.Decoder(msgspec.Raw).decode


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    level: Annotated[str, msgspec.Meta(max_length=10)]
    time: float
    args: list[msgspec.Raw]


_check_logs = msgspec.json.Decoder(list[_Line]).decode


class Broken(Exception):
    """What the worker sent cannot come from our own code in it."""


def cpu(limits: Limits) -> StepFailure:
    """The processor time is used up."""
    return StepFailure(
        f"The code used more processor time than its limit of {limits.cpu:g} s (limits.cpu).",
        "limit_cpu",
    )


def wall(limits: Limits) -> StepFailure:
    """The time is up."""
    return StepFailure(
        f"The code took longer than its limit of {limits.wall:g} s (limits.wall).", "limit_wall"
    )


def requests(most: int) -> StepFailure:
    """It has asked too often."""
    return StepFailure(
        f"The code made more than {most:,} requests (fetch, util.sleep and util.getFile…).",
        "limit_requests",
    )


def memory(limits: Limits, logs: Raw | None = None) -> StepFailure:
    """The memory is used up."""
    return StepFailure(
        f"The code used more memory than its limit of {_size(limits.memory)} (limits.memory).",
        "limit_memory",
        logs,
    )


def crash(worker: Worker, limits: Limits) -> StepFailure:
    """The worker died, or broke the protocol."""
    ended = worker.ended
    if worker.killed or ended is None:
        return StepFailure("The JavaScript engine broke off its answer.", "engine_crash")
    if _was_memory(worker, ended, limits):
        return memory(limits)
    return StepFailure(f"The JavaScript engine crashed ({ended.words}).", "engine_crash")


def failed(evaluation: Evaluation, data: Failed) -> StepFailure:
    """What the worker itself has noticed.

    Raises:
        Broken: the logs are none.
    """
    logs = checked_logs(data.logs, evaluation.limits)
    limits = evaluation.limits
    if data.code == "limit_memory":
        return memory(limits, logs)
    if data.code == "limit_output":
        text = f"The output is larger than its limit of {_size(limits.output)} (limits.output)."
        return StepFailure(text, data.code, logs)
    if data.code == "limit_logs":
        text = f"The logs are larger than their limit of {_size(limits.logs)} (limits.logs)."
        return StepFailure(text, data.code, logs)
    return StepFailure(_words(evaluation, data), "script", logs)


def checked_output(data: bytes) -> Raw:
    """Return a worker's output if it is JSON that anybody can parse.

    Raises:
        Broken: it is not.
        StepFailure: it is, but it nests too deeply.
    """
    try:
        data.decode()
        _check(data)
        check_numbers(data)
        if data.count(b"[") + data.count(b"{") > _SLACK:
            _check(b"[" * _SLACK + data + b"]" * _SLACK)
    except RecursionError as error:
        raise StepFailure("The value nests too deeply.", "script") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise Broken(str(error)) from error
    return Raw(data)


def checked_logs(data: bytes | None, limits: Limits) -> Raw | None:
    """Return a worker's logs if they are such.

    Raises:
        Broken: they are not.
    """
    if data is None:
        return None
    try:
        if len(data) > limits.logs:
            raise Broken("logs over their limit")
        data.decode()
        _check_logs(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Broken(str(error)) from error
    return Raw(data)


def _words(evaluation: Evaluation, data: Failed) -> str:
    text = f"{data.name}: {data.message}" if data.name else data.message
    places = [f"line {data.line}"] if data.line > 0 else []
    if len(evaluation.scripts) > 1:
        places.append(f"script {data.script + 1}")
    if places:
        text += f" ({', '.join(places)})"
    if data.name == "TypeError":
        absent = _absent_key(evaluation, data)
        if absent:
            text += f". The step {absent} did not run, so {absent} is undefined"
    return text


def _absent_key(evaluation: Evaluation, data: Failed) -> str | None:
    """Find the absent step whose property was read: engines name the property, not the object."""
    if "undefined" not in data.message or not 0 <= data.script < len(evaluation.scripts):
        return None
    script = evaluation.scripts[data.script]
    found = re.search(r"(?:property|reading) '([^']{1,100})'", data.message)
    wanted = re.escape(found[1]) if found else r"\w+"
    for key in evaluation.absent:
        pattern = rf"(?<![\w$.]){re.escape(key)}\s*(?:\.\s*{wanted}(?![\w$])|\[)"
        if re.search(pattern, script):
            return key
    for key in evaluation.absent:
        if re.search(rf"=\s*{re.escape(key)}(?![\w$])", script):  # destructured
            return key
    return None


def _was_memory(worker: Worker, ended: Ended, limits: Limits) -> bool:
    first = worker.ready.resident * 1024 if worker.ready else 0
    return ended.resident - first > 0.7 * limits.memory


def _size(number: int) -> str:
    return f"{number / _MIB:g} MiB" if number >= _MIB // 10 else f"{number} bytes"
