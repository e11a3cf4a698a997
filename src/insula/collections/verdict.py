"""What a rule's run says about its record. Pure."""

import math
from typing import Any

_WORDS = ("passed", "success", "valid", "status")
_NO = frozenset(
    [
        "fail",
        "failed",
        "failure",
        "error",
        "invalid",
        "rejected",
        "reject",
        "denied",
        "no",
        "false",
        "negative",
        "bad",
    ]
)
STATUSES = {"PASS": "PASSED", "FAIL": "FAILED", "WARN": "WARN"}
"""What ``on_success`` and ``on_fail`` make of a rule."""


def succeeds(status: str, result: Any) -> bool:
    """Say whether a rule's run is a success: it COMPLETED, and its result does not say otherwise.

    The first of ``passed``, ``success``, ``valid`` and ``status`` that an object has decides; no
    result counts as success, and what else there is counts as in JavaScript.
    """
    if status != "COMPLETED":
        return False
    if result is None:
        return True
    if isinstance(result, dict):
        for word in _WORDS:
            if result.get(word) is not None:
                return _holds(result[word])
        return True
    return _truthy(result)


def _holds(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip()) and value.strip().lower() not in _NO
    return _truthy(value)


def _truthy(value: Any) -> bool:
    if isinstance(value, list | dict):
        return True
    if isinstance(value, float) and math.isnan(value):
        return False
    return bool(value)
