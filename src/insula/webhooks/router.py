"""All routes of webhooks."""

from fastapi import APIRouter

from insula.webhooks import endpoints
from insula.webhooks.opening import Webhooks


def router(webhooks: Webhooks) -> APIRouter:
    """Make the router."""
    routes = APIRouter(tags=["webhooks"])
    endpoints.add_routes(routes, webhooks)
    return routes
