"""Analyses that an ``Idempotency-Key`` stands for: the same request begins one."""

from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection

from insula.collections.services import RecordServices
from insula.errors import Conflict
from insula.web.auth import Principal
from insula.web.idempotency import Idempotency, claim, find_claim


async def was_done(
    services: RecordServices, principal: Principal, idempotency: Idempotency | None
) -> bool:
    """Say whether the same request was carried out before; it began what is not begun again.

    Raises:
        KeyReused: the key came with another body.
    """
    if idempotency is None:
        return False
    query = partial(find_claim, principal=principal, idempotency=idempotency)
    return await services.runs.database.read(query) is not None


def claiming(
    principal: Principal, idempotency: Idempotency | None, record_id: str
) -> Callable[[Connection], None] | None:
    """Return what records, in the unit of a change, that the request was carried out."""
    if idempotency is None:
        return None

    def unit(connection: Connection) -> None:
        if claim(connection, principal, idempotency, record_id) is not None:
            words = "A request with this Idempotency-Key is being worked on elsewhere. Try again."
            raise Conflict(words, retry_after=1)

    return unit
