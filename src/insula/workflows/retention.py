"""How long a run's data is kept: read from a number, an object or null, and kept as one form."""

from typing import Annotated, Any

from pydantic import BaseModel, PlainValidator, StrictBool, StrictFloat, StrictInt, ValidationInfo

from insula.web.fields import FORM

FOREVER = -1
_MOST = 100 * 365 * 24 * 3600
_WORDS = (
    "must be a number of seconds from 0 to 3,153,600,000, -1 to keep for ever, an object "
    "{max_age_in_seconds, preserve_on_failure?}, or null for the installation's default"
)


class RetentionRule(BaseModel):
    """How long, in seconds (-1: for ever), and whether FAILED runs are kept whatever their age."""

    max_age_in_seconds: StrictInt | StrictFloat
    preserve_on_failure: StrictBool | None = None


def parse(given: object) -> RetentionRule | None:
    """Read a retention.

    Raises:
        ValueError: it is none; says what one is.
    """
    if given is None or isinstance(given, RetentionRule):
        return given
    preserve: object = None
    seconds: object = given
    if isinstance(given, dict):
        seconds = given.get("max_age_in_seconds")
        preserve = given.get("preserve_on_failure")
    if not isinstance(preserve, bool | None):
        raise ValueError("preserve_on_failure must be true or false")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError(_WORDS)
    if not (seconds == FOREVER or 0 <= seconds <= _MOST):
        raise ValueError(_WORDS)
    return RetentionRule(max_age_in_seconds=seconds, preserve_on_failure=preserve)


def _validate(given: Any, info: ValidationInfo) -> RetentionRule | None:
    if info.context is FORM and isinstance(given, str):
        try:
            given = float(given) if "." in given else int(given)
        except ValueError as error:
            raise ValueError(_WORDS) from error
    return parse(given)


Retention = Annotated[
    RetentionRule | float | None,
    PlainValidator(_validate, json_schema_input_type=RetentionRule | float | None),
]
"""A field of a model that reads a retention; its value is a ``RetentionRule`` or ``None``."""


def stored(given: object) -> bytes | None:
    """Encode a retention as it stands in rows and answers."""
    rule = parse(given)
    return None if rule is None else rule.model_dump_json(exclude_none=True).encode()
