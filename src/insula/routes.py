"""Every route of the product, in the order in which paths are matched."""

from dataclasses import dataclass

from fastapi import APIRouter
from starlette.routing import Route

from insula.apps import endpoints as apps_endpoints
from insula.apps.authenticate import Authenticator
from insula.catalogue import endpoints as catalogue_endpoints
from insula.catalogue import runs_endpoints as catalogue_runs_endpoints
from insula.collections import endpoints as collections_endpoints
from insula.collections.services import RecordServices
from insula.connections import endpoints as connections_endpoints
from insula.connections.opening import Connections
from insula.deletion import Deletion
from insula.files import endpoints as files_endpoints
from insula.runs import endpoints as runs_endpoints
from insula.runs import retention_endpoints
from insula.runs.services import RunServices
from insula.schedules import endpoints as schedules_endpoints
from insula.schedules.deployed import settle
from insula.schedules.timekeeper import Timekeeper
from insula.tags import endpoints as tags_endpoints
from insula.variables import endpoints as variables_endpoints
from insula.variables.scope import Variables
from insula.webhooks import endpoints as webhooks_endpoints
from insula.webhooks.opening import Webhooks
from insula.workflow_tests import endpoints as tests_endpoints
from insula.workflow_tests.runner import TestRunner
from insula.workflows import endpoints as workflows_endpoints
from insula.workflows.paths import DISCOVER, WORKFLOW


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes work with."""

    services: RunServices
    authenticator: Authenticator
    variables: Variables
    connections: Connections
    timekeeper: Timekeeper
    webhooks: Webhooks
    tests: TestRunner
    records: RecordServices
    deletion: Deletion


def routers(parts: Parts) -> list[APIRouter]:
    """Make the routers of all concepts."""
    services, deletion = parts.services, parts.deletion
    database, resolver = services.database, services.resolver
    return [
        runs_endpoints.router(services),
        retention_endpoints.router(services),
        catalogue_runs_endpoints.router(services),
        catalogue_endpoints.router(database),
        workflows_endpoints.router(database, resolver, [deletion.stop_workflow], settle),
        schedules_endpoints.router(services, parts.timekeeper),
        tests_endpoints.router(services, parts.tests),
        collections_endpoints.router(parts.records),
        tags_endpoints.router(database),
        files_endpoints.router(services.files),
        variables_endpoints.router(parts.variables),
        connections_endpoints.router(parts.connections, services.http),
        webhooks_endpoints.router(parts.webhooks),
        apps_endpoints.router(database, parts.authenticator, [deletion.stop_app]),
    ]


def fast_routes(services: RunServices) -> list[Route]:
    """Make the routes that have to be fast; they come before the same paths of the routers."""
    return [
        *runs_endpoints.plain_routes(services, WORKFLOW + "/runs", own=True),
        *runs_endpoints.plain_routes(services, DISCOVER + "/{workflow_id}/runs", own=False),
    ]
