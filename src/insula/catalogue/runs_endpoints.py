"""Running other apps' workflows: the same routes as for one's own, found through the catalogue."""

from fastapi import APIRouter

from insula.runs.endpoints import add_workflow_runs
from insula.runs.services import RunServices


def router(services: RunServices) -> APIRouter:
    """Make the routes of runs below ``workflows/discover``."""
    routes = APIRouter(tags=["catalogue"])
    base = "/apps/{app_id}/workflows/discover/{workflow_id}/runs"
    add_workflow_runs(routes, services, base, own=False)
    return routes
