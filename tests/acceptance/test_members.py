"""Every member of the contract's answers is given by some answer, on each database."""

from tests.acceptance.echoes import echoing
from tests.acceptance.everything import everything
from tests.acceptance.harness import Clients
from tests.contract import needs_contract
from tests.contract_members import all_members

DATABASES = ("sqlite", "postgres")
NEVER = {
    "IncludeRecordRuleSchema.verbose": "a query's parameter that strayed into the answer",
    "WorkflowSchema.template_id": "nothing is made from templates: always null",
    "StepBrowserOutputSchema.": "no browser step runs yet",
    "StepWorkflowRecordOutputSchema.": "a workflow step starts runs, and no records",
    "StepWorkflowOutputSchema.request": "a child run is not started by an HTTP request",
    "RunRequestSchema.": "a child run is not started by an HTTP request",
    "StepHttpRequestOutputSchema.error": "no answer is the step's error, and no output",
    "StepModelOutputSchema.tool_index": "calls are told when they are complete, not in pieces",
    "CreditsCallUsageSchema.calls": "a tool's own calls are in its total",
    "RecordRuleSchema.run.workflow_version_draft": "a rule runs deployed versions: always null",
    "AppFileNullableSchema.document": "what was found in a link's file is told under `files`",
    "RunStepCancelledOutputSchema.error": "why a step was stopped is told of its run",
    "RunStepSkippedOutputSchema.output": "a step that was skipped made nothing",
    "RunStepSkippedOutputSchema.logs": "a step that was skipped made nothing",
    "RunStepSkippedOutputSchema.calls": "a step that was skipped made nothing",
    **{f"Step{kind}Schema.loop": "a loop there is refused" for kind in ("Note", "Input", "Branch")},
}
"""Members, or all that begin so, that no answer has, and why."""


@needs_contract
async def test_every_member_is_given_by_some_answer(callers: Clients) -> None:
    async with echoing() as echoes:
        seen = await everything(await callers.app("Acme"), echoes.url)
    missing = all_members() - seen.members
    explained = {one for one in missing if one.startswith(tuple(NEVER))}
    left = sorted(missing - explained)
    assert not left, "\n".join(left)
    idle = [one for one in NEVER if not any(left.startswith(one) for left in missing)]
    assert not idle, "these are given by now"
