"""Running other apps' workflows: the same routes as for one's own, found through the catalogue."""

from fastapi import APIRouter

from insula.runs.endpoints import add_workflow_runs
from insula.runs.services import RunServices
from insula.web.routing import create_router


def router(services: RunServices) -> APIRouter:
    """Make the routes of runs below ``workflows/discover``."""
    routes = create_router("catalogue")
    base = "/apps/{app_id}/workflows/discover/{workflow_id}/runs"
    add_workflow_runs(routes, services, base, own=False)
    return routes
