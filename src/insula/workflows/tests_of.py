"""What a workflow says of its tests: how many passed, and whether it may be deployed."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, and_, func, or_, select

from insula.errors import Conflict, FieldError
from insula.storage.tables import workflow_tests as tests

_NAMED = 20
_COUNTS = {
    "RUNNING": "running_count",
    "CANCELLED": "cancelled_count",
    "PASSED": "passing_count",
    "FAILED": "failing_count",
}


def tests_stats(
    connection: Connection, workflow_ids: Sequence[str]
) -> dict[str, Mapping[str, int]]:
    """Return ``WorkflowTestStatsSchema`` of each workflow; one without tests has zeros."""
    names = ("total_count", *_COUNTS.values())
    more = ("expectations_failing_count", "expectations_passing_count")
    found = {key: dict.fromkeys((*names, *more), 0) for key in workflow_ids}
    if not found:
        return {}
    query = (
        select(
            tests.c.workflow_id,
            tests.c.status,
            func.count(),
            func.sum(tests.c.failing),
            func.sum(tests.c.passing),
        )
        .where(tests.c.workflow_id.in_(list(found)))
        .group_by(tests.c.workflow_id, tests.c.status)
    )
    for workflow_id, status, number, failing, passing in connection.execute(query).all():
        stats = found[workflow_id]
        stats["total_count"] += number
        if status in _COUNTS:
            stats[_COUNTS[status]] += number
        stats["expectations_failing_count"] += int(failing)
        stats["expectations_passing_count"] += int(passing)
    return dict(found)


def refuse_untested(connection: Connection, workflow_id: str, body_hash: bytes) -> None:
    """Refuse a deploy while there are tests that did not pass on this very body.

    Raises:
        Conflict: there are; one entry for each of the first.
    """
    passed = and_(tests.c.status == "PASSED", tests.c.ran == body_hash)
    query = (
        select(tests.c.id, tests.c.name)
        .where(tests.c.workflow_id == workflow_id)
        .where(or_(tests.c.ran.is_(None), ~passed))
        .order_by(tests.c.id)
        .limit(_NAMED + 1)
    )
    left = connection.execute(query).all()
    if not left:
        return
    named = ", ".join(name for _, name in left[:_NAMED])
    more = " and more" if len(left) > _NAMED else ""
    raise Conflict(
        f"This workflow requires its tests to pass, and these have not passed on this draft: "
        f"{named}{more}. Run them, or send force: true.",
        [
            FieldError(("tests", test_id), "not_passed", f"{name} has not passed on this draft")
            for test_id, name in left[:_NAMED]
        ],
    )
