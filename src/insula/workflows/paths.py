"""How a workflow is named in a path, so that ``discover`` is never taken for the id of one."""

from starlette.convertors import Convertor, register_url_convertor


class _WorkflowIdConvertor(Convertor[str]):
    """Any segment but the words that are routes of their own."""

    regex = r"(?!(?:discover|import)(?:/|$))[^/]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("workflow", _WorkflowIdConvertor())

WORKFLOWS = "/apps/{app_id}/workflows"
WORKFLOW = WORKFLOWS + "/{workflow_id:workflow}"
"""Prefix of every route below one workflow; whatever the order of routers, the routes of the
catalogue win, because this one does not match them."""
DISCOVER = WORKFLOWS + "/discover"
