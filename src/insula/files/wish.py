"""What is to be extracted from a document."""

from collections.abc import Sequence

import msgspec

from insula.errors import BadInput, FieldError

PAGES_MAX = 10_000
_LAST_PAGE = 1_000_000


class Wish(msgspec.Struct, frozen=True, omit_defaults=True):
    """Contents, images, the chosen pages as a PDF; of all pages, or of some."""

    contents: bool = False
    images: bool = False
    extract_pages: bool = False
    pages: tuple[int, ...] | None = None
    max_pages: int | None = None

    @property
    def anything(self) -> bool:
        """Whether there is anything to do."""
        return self.contents or self.images or self.extract_pages

    def covers(self, other: "Wish") -> bool:
        """Whether nothing is missing where this was done and the other is wanted."""
        return (
            self.contents >= other.contents
            and self.images >= other.images
            and self.extract_pages >= other.extract_pages
        )

    def joined(self, other: "Wish") -> "Wish":
        """Return what both want, of the pages that this one names."""
        return msgspec.structs.replace(
            self,
            contents=self.contents or other.contents,
            images=self.images or other.images,
            extract_pages=self.extract_pages or other.extract_pages,
        )


_encoder = msgspec.json.Encoder()
encode_wish = _encoder.encode
decode_wish = msgspec.json.Decoder(Wish).decode


def checked_pages(
    pages: Sequence[float] | None, name: str = "document_pages"
) -> tuple[int, ...] | None:
    """Return numbers of pages as they are meant: whole, from 1.

    Raises:
        BadInput: one is not.
    """
    if pages is None:
        return None
    whole = tuple(int(page) for page in pages if page == page // 1 and 1 <= page <= _LAST_PAGE)
    if len(whole) != len(pages) or len(whole) > PAGES_MAX:
        message = f"must be at most {PAGES_MAX:,} whole numbers, counted from 1"
        raise BadInput(f"{name} {message}.", [FieldError((name,), "pages", message)])
    return whole or None


def checked_count(count: float | None, name: str = "document_max_pages") -> int | None:
    """Return a number of pages: whole, at least 1.

    Raises:
        BadInput: it is not.
    """
    if count is None:
        return None
    if not 1 <= count <= _LAST_PAGE or count != count // 1:
        message = "must be a whole number of at least 1"
        raise BadInput(f"{name} {message}.", [FieldError((name,), "pages", message)])
    return int(count)
