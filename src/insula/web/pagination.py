"""Lists by page and by cursor: what is asked, what the headers say, and opaque cursors."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query
from starlette.responses import Response

from insula.errors import BadInput, FieldError
from insula.kit.json import InvalidJson, decode, encode
from insula.web.respond import json_answer

HEADERS = (
    "pagination-page",
    "pagination-take",
    "pagination-count",
    "pagination-next",
    "pagination-capped",
)
REACH = 10_000
"""The last row that ``page`` reaches; a cursor goes on."""

_CHECK = 6
_MOST = 2**53
"""The greatest number of a position: of rows, or of milliseconds."""
_PAGE = "#"


@dataclass(frozen=True, slots=True)
class Page:
    """What is asked of a list. With ``cursor``, what it says holds and ``page`` only counts."""

    page: int = 1
    take: int = 20
    cursor: Mapping[str, Any] | None = None

    @property
    def offset(self) -> int:
        """Rows to skip; 0 with a cursor."""
        return 0 if self.cursor is not None else (self.page - 1) * self.take

    def position(self, member: str = "before") -> str | None:
        """Return where the list goes on, as the cursor has it; ``None`` at its beginning.

        Raises:
            BadInput: the cursor is another list's.
        """
        if self.cursor is None:
            return None
        found = self.cursor.get(member)
        if not isinstance(found, str):
            raise bad_cursor()
        return found


def encode_cursor(position: Mapping[str, object]) -> str:
    """Make an opaque cursor of a position: JSON, with a digest that shows damage."""
    body = encode(dict(position))
    return _text(_digest(body) + body)


def decode_cursor(text: str) -> dict[str, Any]:
    """Read a cursor.

    Raises:
        BadInput: it was not made by ``encode_cursor``.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        position = decode(data[_CHECK:])
    except (ValueError, InvalidJson) as error:
        raise bad_cursor() from error
    if _text(data) != text or _digest(data[_CHECK:]) != data[:_CHECK]:
        raise bad_cursor()
    if not isinstance(position, dict) or not all(map(_is_sought, position.values())):
        raise bad_cursor()
    return position


def bad_cursor() -> BadInput:
    """Make the refusal of what is no cursor, or another list's."""
    return BadInput(
        "`next` is not a cursor of this list. Send what `pagination-next` said, unchanged.",
        [FieldError(("next",), "cursor", "is not a cursor of this list", "query")],
    )


def _is_sought(value: object) -> bool:
    """Say whether every database can look for a value: anyone may make a cursor."""
    if isinstance(value, int):
        return abs(value) <= _MOST
    return not isinstance(value, str) or "\0" not in value


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK, person=b"insula-cursor").digest()


async def paging(
    page: Annotated[int, Query(ge=1, description="From 1.")] = 1,
    take: Annotated[int, Query(ge=1, le=100, description="Rows a page.")] = 20,
    following: Annotated[
        str | None,
        Query(alias="next", max_length=2000, description="What `pagination-next` said."),
    ] = None,
) -> Page:
    """FastAPI dependency: the page that is asked for.

    Raises:
        BadInput: the page lies beyond row 10,000, or the cursor is not one of ours.
    """
    if following:
        position = decode_cursor(following)
        number = position.pop(_PAGE, 1)
        return Page(number if isinstance(number, int) else 1, take, position)
    if (page - 1) * take >= REACH:
        message = f"reaches row {REACH:,}; go on with `next` from the `pagination-next` header"
        raise BadInput(f"`page` {message}.", [FieldError(("page",), "too_far", message, "query")])
    return Page(page, take)


Paging = Annotated[Page, Depends(paging)]


def list_answer(
    items: Sequence[object] | bytes,
    page: Page,
    count: int,
    capped: bool = False,
    next_cursor: Mapping[str, object] | None = None,
) -> Response:
    """Answer a list, bare, with its headers.

    ``count`` is of the whole list; ``capped`` says that there are at least so many.
    ``next_cursor`` is the position after the last item, ``None`` at the end.
    """
    headers = {
        "pagination-page": str(page.page),
        "pagination-take": str(page.take),
        "pagination-count": str(count),
    }
    if capped:
        headers["pagination-capped"] = "true"
    if next_cursor is not None:
        headers["pagination-next"] = encode_cursor({**next_cursor, _PAGE: page.page + 1})
    return json_answer(items, headers)
