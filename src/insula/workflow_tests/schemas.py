"""What callers send about tests and expectations, and what they are shown."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from insula.kit.clock import iso
from insula.runs.answers import RunSchema
from insula.web.fields import Name, storable
from insula.workflow_tests.rows import Expectation

EXPECTED_MAX = 50
"""Expectations of one test."""
SCRIPT_MAX = 64 * 1024

Script = Annotated[str, Field(max_length=SCRIPT_MAX), AfterValidator(storable)]
Key = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(storable)]
Id = Annotated[str, Field(max_length=100), AfterValidator(storable)]
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Sent(BaseModel):
    """What is not known is passed over, so that an answer can be sent back changed."""

    model_config = ConfigDict(extra="ignore")


class CreateExpectation(_Sent):
    """A new expectation that tests of the workflow can share."""

    name: Name
    script: Script


class UpdateExpectation(_Sent):
    """Changes of a shared expectation; what is left out stays."""

    name: Name | None = None
    script: Script | None = None


class ExpectationItem(_Sent):
    """What a test expects: a script of its own, or a shared expectation."""

    key: Key
    name: Annotated[str, Field(max_length=200), AfterValidator(storable)]
    expectation_id: Id | None = None
    script: Script | None = None


Items = Annotated[list[ExpectationItem], Field(max_length=EXPECTED_MAX)]


class _TestFields(_Sent):
    input: dict[str, Any] | None = None
    input_default: dict[str, Any] | None = None
    input_context: dict[str, Any] | None = None
    expectations: Items = []
    step_key: Key | None = None


class CreateTest(_TestFields):
    """A new test; only its name is required."""

    name: Name


class UpdateTest(_TestFields):
    """Changes of a test; what is left out stays."""

    name: Name | None = None


class RecordTest(_Sent):
    """A test that is made of a past run."""

    name: Name | None = None
    expectations: Items = []


class RunTest(_Sent):
    """How a test is executed."""

    workflow_version_number: Number | None = None
    execute_async: bool | None = None
    execute_expectations_only: bool | None = None


class RunTests(_Sent):
    """How all tests of a workflow are executed."""

    workflow_version_number: Number | None = None
    execute_failed_only: bool | None = None


class ExpectationSchema(BaseModel):
    """A shared expectation."""

    id: str
    name: str
    script: str
    created_at: str | None
    updated_at: str | None


class ItemSchema(BaseModel):
    """What a test expects, with what became of it when it was last judged."""

    key: str
    name: str
    expectation_id: str | None = None
    script: str | None = None
    output: Any = None
    logs: list[Any] | None = None
    status: Literal["PASSED", "FAILED"] | None = None


_ASKED: Any = Field(
    None, description="Of one test, or with `verbose=all`.", json_schema_extra={"nullable": True}
)


class TestSchema(BaseModel):
    """A test, with the run that it was last judged on."""

    __test__ = False  # no test of ours

    id: str
    name: str
    status: Literal["DRAFT", "CANCELLED", "RUNNING", "FAILED", "PASSED"]
    input: dict[str, Any] | None = _ASKED
    input_default: dict[str, Any] | None = _ASKED
    input_context: dict[str, Any] | None = _ASKED
    step_key: str | None
    expectations: list[ItemSchema] | None = None
    expectations_passing_count: int
    expectations_failing_count: int
    workflow_id: str
    run: RunSchema | None
    recorded: bool = Field(description="Whether answers from outside are played to it.")
    error: str | None = Field(None, description="Why there is no run that could be judged.")
    created_at: str | None
    updated_at: str | None


class StatsSchema(BaseModel):
    """How the tests of a workflow did."""

    total_count: int
    running_count: int
    cancelled_count: int
    passing_count: int
    failing_count: int
    expectations_failing_count: int
    expectations_passing_count: int


class StartedSchema(BaseModel):
    """Which tests begin, or were stopped."""

    count: int
    tests: list[str]


def expectation_wire(row: Expectation) -> dict[str, Any]:
    """Return a shared expectation as ``WorkflowExpectationSchema`` says."""
    return {
        "id": row.id,
        "name": row.name,
        "script": row.script.decode(),
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
    }
