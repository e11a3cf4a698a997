"""All routes of webhooks."""

from fastapi import APIRouter

from insula.web.routing import create_router
from insula.webhooks import endpoints, hook_endpoints
from insula.webhooks.opening import Webhooks


def router(webhooks: Webhooks) -> APIRouter:
    """Make the router."""
    routes = create_router("webhooks")
    endpoints.add_routes(routes, webhooks)
    hook_endpoints.add_routes(routes, webhooks)
    return routes
