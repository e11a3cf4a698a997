"""What is to be extracted from a document."""

from collections.abc import Callable, Sequence

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
    whole: bool = False
    """Contents and images are read of all pages; those that are chosen are shown."""

    @property
    def anything(self) -> bool:
        """Whether there is anything to do."""
        return self.contents or self.images or self.extract_pages

    @property
    def of_all(self) -> bool:
        """Whether contents and images are read of all pages."""
        return self.whole or self._choice == (None, None)

    @property
    def _choice(self) -> tuple[tuple[int, ...] | None, int | None]:
        return self.pages, self.max_pages

    def covers(self, other: "Wish") -> bool:
        """Whether nothing is missing where this was done and the other is wanted. One that wants
        the whole does not mind what is shown."""
        right_pages = self.of_all if other.whole else self._choice == other._choice
        return self._gives(other) and right_pages

    def suffices(self, other: "Wish") -> bool:
        """Whether what was read for this is all that is to be read for the other."""
        same = self._choice == other._choice
        read = self.of_all or (same and not other.of_all)
        return self._gives(other) and read and (same or not other.extract_pages)

    def _gives(self, other: "Wish") -> bool:
        return (
            self.contents >= other.contents
            and self.images >= other.images
            and self.extract_pages >= other.extract_pages
        )

    def joined(self, other: "Wish") -> "Wish":
        """Return what both want; shown are the pages that the other chooses, if it minds."""
        chooses = self if other.whole else other
        return Wish(
            contents=self.contents or other.contents,
            images=self.images or other.images,
            extract_pages=self.extract_pages or other.extract_pages,
            pages=chooses.pages,
            max_pages=chooses.max_pages,
            whole=other.whole or self.of_all,
        )

    def shown(self) -> Callable[[int], bool]:
        """Return what tells of a page of a document that was read wholly whether it is one of
        those that were chosen."""
        if self.pages is not None:
            return frozenset(self.pages[: self.max_pages]).__contains__
        most = self.max_pages
        return lambda page: most is None or page <= most


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
