"""The routes of a concept: FastAPI's own, except that each is built when it is first asked for."""

import threading
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import compile_path, get_name

_building = threading.RLock()
"""The document is made in a thread, while requests come in for the same routes."""


class LateRoute(APIRoute):
    """A route of which only path and methods are known until it is asked for, or described.

    What FastAPI makes of all parameters and answers of all routes is a seventh of a server's start,
    and two thirds of a test's.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        self.path = path
        self.endpoint = endpoint
        self.name = given.get("name") or get_name(endpoint)
        self.methods = {method.upper() for method in given.get("methods") or ("GET",)}
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self._given = given

    def __getattr__(self, name: str) -> Any:
        # Only what is not there is asked for here: whatever is not said above.
        with _building:
            given = self.__dict__.pop("_given", None)
            if given is not None:
                super().__init__(self.path, self.endpoint, **given)
            elif name not in self.__dict__:
                raise AttributeError(f"A route has no {name}")
            return getattr(self, name)


def create_router(tag: str) -> APIRouter:
    """Make the router of a concept; ``tag`` is its name in the document."""
    return APIRouter(tags=[tag], route_class=LateRoute, generate_unique_id_function=_operation_id)


def _operation_id(route: APIRoute) -> str:
    """Name an operation as its handler is; the runs of others' workflows have the same handlers."""
    return f"discover_{route.name}" if "/discover/{workflow_id}/runs" in route.path else route.name
