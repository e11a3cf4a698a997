"""Answers: JSON from values, or from bytes that are JSON already."""

from collections.abc import Mapping

from starlette.responses import Response

from insula.kit.json import encode

JSON = "application/json"


def json_answer(
    value: object, headers: Mapping[str, str] | None = None, status: int = 200
) -> Response:
    """Answer a value as JSON; ``bytes`` are sent as they are."""
    body = value if isinstance(value, bytes) else encode(value)
    return Response(body, status, headers=headers, media_type=JSON)


def null_answer() -> Response:
    """Answer a delete: JSON ``null``."""
    return Response(b"null", media_type=JSON)
