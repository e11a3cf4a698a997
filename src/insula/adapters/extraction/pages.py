"""Which pages of a document are meant."""

import msgspec

from insula.adapters.extraction.collector import Refused
from insula.adapters.extraction.messages import Order


def read_of(order: Order, count: int) -> list[int]:
    """Return the numbers of the pages whose contents and images are wanted.

    Raises:
        Refused: as ``chosen``.
    """
    if order.whole:
        order = msgspec.structs.replace(order, pages=None, max_pages=None)
    return chosen(order, count)


def chosen(order: Order, count: int) -> list[int]:
    """Return the numbers of the pages to read, from 1, in the order asked for.

    Raises:
        Refused: none of those asked for is there, or they are too many.
    """
    wanted = list(range(1, count + 1))
    if order.pages is not None:
        wanted = [page for page in dict.fromkeys(order.pages) if 1 <= page <= count]
        if not wanted:
            raise Refused(f"None of document_pages is there: the document has {count:,} pages")
    if order.max_pages is not None:
        wanted = wanted[: order.max_pages]
    if len(wanted) > order.pages_limit:
        raise Refused(
            f"The document has {len(wanted):,} pages, more than {order.pages_limit:,} "
            "(INSULA_EXTRACT_PAGES); choose some with document_pages or document_max_pages"
        )
    return wanted
