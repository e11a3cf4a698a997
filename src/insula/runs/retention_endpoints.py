"""The route that says what of an app's runs is due to be erased, and when."""

from functools import partial
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from insula.kit.clock import iso, now_ms
from insula.runs.due import Count, status
from insula.runs.services import RunServices
from insula.web.auth import Reader
from insula.web.openapi import READS
from insula.web.respond import json_answer
from insula.web.routing import create_router


class DueSchema(BaseModel):
    """How many runs are due."""

    count: int
    capped: bool = Field(description="There are at least so many.")


class DueDaySchema(DueSchema):
    """How many runs fall due on a day (UTC)."""

    date: str


class RetentionStatusSchema(BaseModel):
    """What of an app's runs is due to be erased, and when."""

    default_seconds: int = Field(description="The installation's retention; -1: for ever.")
    due: DueSchema
    oldest_due_at: str | None
    days: list[DueDaySchema]
    erased_per_second: float = Field(
        description="Runs of all apps that this server erased, over the last minute."
    )


def router(services: RunServices) -> APIRouter:
    """Make the route."""
    routes = create_router("runs")

    @routes.get(
        "/apps/{app_id}/retention",
        summary="Say what is due to be erased",
        response_model=RetentionStatusSchema,
        responses=READS,
    )
    async def get_retention(principal: Reader) -> Response:
        """What is due now, and on each of the next 30 days."""
        query = partial(status, app_id=principal.app_id, now=now_ms())
        found = await services.database.read(query)
        answer = {
            "default_seconds": services.retention,
            "due": _shown(found.now),
            "oldest_due_at": None if found.now.first is None else iso(found.now.first),
            "days": [{"date": iso(day.end)[:10], **_shown(day)} for day in found.days],
            "erased_per_second": round(services.metrics.erased_lately.a_second(), 1),
        }
        return json_answer(answer)

    return routes


def _shown(count: Count) -> dict[str, Any]:
    return {"count": count.runs, "capped": count.capped}
