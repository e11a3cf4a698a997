"""The errors that a caller sees, each with its status and its words.

::

    InsulaError
    ├── BadInput            400   one entry per field in ``errors``
    ├── Unauthorized        401
    ├── Forbidden           403
    ├── NotFound            404
    ├── Conflict            409
    ├── TooLarge            413
    ├── UnsupportedMedia    415
    ├── KeyReused           422   an idempotency key with another body
    ├── TooMany             429   ``retry_after`` seconds
    └── Unavailable         503   ``retry_after`` seconds

They are rendered in one place, ``insula.web.errors``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with a request: where, which rule, and what to do about it."""

    path: tuple[str, ...]
    code: str
    message: str
    validation: str = "body"


class InsulaError(Exception):
    """An answer other than 200."""

    status: ClassVar[int] = 400

    def __init__(
        self, message: str, errors: Sequence[FieldError] = (), retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.errors = tuple(errors)
        self.retry_after = retry_after


class BadInput(InsulaError):
    """What was sent cannot be used."""

    status = 400


class Unauthorized(InsulaError):
    """The key is missing or wrong."""

    status = 401


class Forbidden(InsulaError):
    """The key may not do this."""

    status = 403


class NotFound(InsulaError):
    """There is no such thing, or it is another app's."""

    status = 404


class Conflict(InsulaError):
    """The thing is in a state that does not allow this."""

    status = 409


class TooLarge(InsulaError):
    """The body is over its limit."""

    status = 413


class UnsupportedMedia(InsulaError):
    """The content type is not one that this operation reads."""

    status = 415


class KeyReused(InsulaError):
    """The idempotency key was used with another body."""

    status = 422


class TooMany(InsulaError):
    """A limit on how much may run or be asked at once."""

    status = 429


class Unavailable(InsulaError):
    """It cannot be done now and may be tried again."""

    status = 503
