"""The data model, on one page. Times are Unix milliseconds; JSON is stored as bytes.

Columns that hold JSON are ``LargeBinary``; the text columns hold identifiers and names, which are
checked on the way in (no NUL, no lone surrogate).
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    text,
)
from sqlalchemy import Text as AnyText

metadata = MetaData()

Text = AnyText().with_variant(AnyText(collation="C"), "postgresql")
"""Compared byte by byte on both databases, so that ids sort by their time."""


def _where(condition: str) -> dict[str, Any]:
    """Make an index partial, on both databases."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


apps = Table(
    "apps",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("verified", Boolean, nullable=False, default=False),
    Column("settings", LargeBinary, nullable=False, default=b"{}"),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("deleting", Boolean),  # null: it is there; false: it is gone, for callers' runs alone
    Index("apps_deleting", "id", **_where("deleting")),
    Index("apps_gone", "id", **_where("NOT deleting")),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("read_only", Boolean, nullable=False, default=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Index("keys_by_app", "app_id", "id"),
)

workflows = Table(
    "workflows",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("body", LargeBinary, nullable=False),  # the draft: key, input, …, steps
    Column("problems", LargeBinary, nullable=False, default=b"[]"),
    Column("latest_version_id", Text),
    Column("latest_version", Integer, nullable=False, default=0),
    Column("retention", LargeBinary),
    Column("tags", LargeBinary, nullable=False, default=b"[]"),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("discoverable", Boolean, nullable=False, default=False),
    Column("open", Boolean, nullable=False, default=True),
    Column("published_from_version", Integer),  # versions below it are not for other apps
    Column("caller_limit", Integer),  # live runs one caller may have at once
    Column("deleted", Boolean, nullable=False, default=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("require_tests", Boolean),  # null as false
    Column("stopping", Boolean),  # null as false: deleted, and something of it may run still
    Index("workflows_by_app", "app_id", "deleted", "id"),
    Index("workflows_discoverable", "id", **_where("discoverable AND NOT deleted")),
    Index("workflows_stopping", "id", **_where("stopping")),
    Index("workflows_deleted", "id", **_where("deleted")),
)

blocked_callers = Table(
    "blocked_callers",
    metadata,
    Column("workflow_id", Text, primary_key=True),
    Column("app_id", Text, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("rollback_version", Integer),
    Column("description", Text),
    Column("notes", Text),
    Column("created_by", Text),  # the id of the key that deployed it
    Column("body", LargeBinary, nullable=False),
    Column("body_hash", LargeBinary, nullable=False),
    Column("withdrawn", Boolean, nullable=False, default=False),
    Column("created_at", BigInteger, nullable=False),
    Index("versions_by_workflow", "workflow_id", "version", unique=True),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),  # whose run it is: the caller
    Column("workflow_app_id", Text, nullable=False),  # whose workflow it is
    Column("workflow_id", Text, nullable=False),
    Column("version_id", Text),  # null: a draft, whose body stands in run_data
    Column("version", Integer),
    Column("root_id", Text, nullable=False),
    Column("parent_id", Text),
    Column("parent_key", Text),
    Column("depth", Integer, nullable=False, default=0),
    Column("hidden", Boolean, nullable=False, default=False),  # a child its caller may not see
    Column("status", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("identifier", Text),
    Column("from_step_key", Text),
    Column("replay_of", Text),
    Column("background", Boolean, nullable=False, default=False),
    Column("options", LargeBinary, nullable=False, default=b"{}"),  # timeout, limits, on_disconnect
    Column("owner", Text),  # the token of the process that executes it
    Column("seq", Integer, nullable=False, default=0),  # the last event stored
    Column("error", Text),
    Column("credits", Float, nullable=False, default=0.0),
    Column("retention", LargeBinary),
    Column("retention_due_at", BigInteger),
    Column("erased_at", BigInteger),
    Column("cancel_requested_at", BigInteger),
    Column("cancel_requested_by", Text),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    # One index for whatever filters of status and origin there are, the live ones of an app among
    # them; of a workflow it has what has ended, for that its end is written once.
    Index("runs_by_app", "app_id", "id"),
    Index("runs_by_workflow", "workflow_id", "app_id", "id"),
    Index("runs_by_app_status", "app_id", "status", "origin", "id", **_where("NOT hidden")),
    Index(
        "runs_by_workflow_status",
        "workflow_id",
        "app_id",
        "status",
        "origin",
        "id",
        **_where("ended_at IS NOT NULL AND NOT hidden"),
    ),
    Index("runs_by_root", "root_id", **_where("depth > 0")),
    Index("runs_live", "owner", "id", **_where("ended_at IS NULL")),
    Index(
        "runs_due",
        "retention_due_at",
        **_where("erased_at IS NULL AND retention_due_at IS NOT NULL"),
    ),
    Index(
        "runs_due_of_app",
        "app_id",
        "retention_due_at",
        **_where("erased_at IS NULL AND retention_due_at IS NOT NULL"),
    ),
    Index("runs_by_identifier", "app_id", "identifier", "id", **_where("identifier IS NOT NULL")),
)

run_data = Table(
    "run_data",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("input", LargeBinary),
    Column("draft", LargeBinary),  # the body of a draft run
    Column("request", LargeBinary),  # method, url, … of the call that started it
    Column("kept", LargeBinary),  # of a replay: events of the steps that are kept
    Column("events", LargeBinary),  # the whole journal, compressed, once the run has ended
)

run_events = Table(
    "run_events",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("seq", Integer, primary_key=True),  # of the last event in the row
    Column("events", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

counters = Table(
    "counters",
    metadata,
    Column("app_id", Text, primary_key=True),
    Column("workflow_id", Text, primary_key=True),
    Column("status", Text, primary_key=True),
    Column("origin", Text, primary_key=True),
    Column("slot", Integer, primary_key=True, default=0),  # of the process that counted
    Column("count", BigInteger, nullable=False, default=0),
    sqlite_with_rowid=False,
)

daily_totals = Table(
    "daily_totals",
    metadata,
    Column("day", Integer, primary_key=True),  # days since 1970-01-01, UTC
    Column("app_id", Text, primary_key=True),
    Column("workflow_id", Text, primary_key=True),
    Column("status", Text, primary_key=True),
    Column("runs", BigInteger, nullable=False, default=0),
    Column("credits", Float, nullable=False, default=0.0),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("app_id", Text, primary_key=True),
    Column("method", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hash", LargeBinary, nullable=False),
    Column("resource_id", Text),
    Column("created_at", BigInteger, nullable=False),
    Index("idempotency_by_age", "created_at"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),  # whose runs it starts
    Column("workflow_id", Text, nullable=False),
    Column("step_key", Text),  # the trigger of the workflow that it comes from; null: made by hand
    Column("version", Text),  # as callers name it; null: the latest
    Column("from_step_key", Text),
    Column("cron", Text),  # one of these three
    Column("every", BigInteger),  # seconds, counted from anchor
    Column("at", BigInteger),
    Column("timezone", Text, nullable=False),
    Column("anchor", BigInteger, nullable=False),
    Column("missed", Text, nullable=False),
    Column("input", LargeBinary),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("next_at", BigInteger),  # null: nothing is to come
    Column("last_at", BigInteger),  # the last tick that was dealt with: it only rises
    Column("last_run_id", Text),
    Column("last_error", Text),
    Column("runs", BigInteger, nullable=False, default=0),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("schedules_by_app", "app_id", "id"),
    Index("schedules_by_workflow", "workflow_id", "step_key"),
    Index("schedules_due", "next_at", "id", **_where("next_at IS NOT NULL")),
)

variables = Table(
    "variables",
    metadata,
    Column("app_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("since", BigInteger, primary_key=True),  # a value that changes is a row that follows
    Column("until", BigInteger),  # null: the value of today; others go when no run can need them
    Column("value", LargeBinary),  # null: a secret, which is sealed
    Column("sealed", LargeBinary),
    Column("key_id", Text),  # the key that sealed it
    Column("hosts", LargeBinary),  # where a secret may go; null: anywhere
    Column("created_at", BigInteger, nullable=False),
    Index("variables_today", "app_id", "key", unique=True, **_where("until IS NULL")),
    Index("variables_past", "until", **_where("until IS NOT NULL")),
    Index("variables_sealed", "key_id", **_where("key_id IS NOT NULL")),
)

connections = Table(
    "connections",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("settings", LargeBinary, nullable=False, default=b"{}"),  # what is no secret
    Column("sealed", LargeBinary, nullable=False),  # the credentials
    Column("key_id", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("connections_by_app", "app_id", "id"),
    Index("connections_sealed", "key_id", **_where("key_id IS NOT NULL")),
)

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("run_id", Text),  # a file that came in with a run's input
    Column("filename", Text, nullable=False),
    Column("mimetype", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("storage", Text, nullable=False),
    Column("visibility", Text, nullable=False),
    Column("expires_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("parent_id", Text),  # the document whose page or picture it is
    Index("files_by_app", "app_id", "id"),
    Index("files_listed", "app_id", "id", **_where("parent_id IS NULL")),
    Index("files_by_parent", "parent_id", **_where("parent_id IS NOT NULL")),
    Index("files_by_run", "run_id"),
    Index("files_by_expiry", "expires_at"),
)

extractions = Table(
    "extractions",
    metadata,
    Column("file_id", Text, ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("status", Text, nullable=False),  # PROCESSING, PROCESSED, FAILED
    Column("message", Text),
    Column("progress", Float, nullable=False, default=0.0),
    Column("wanted", LargeBinary, nullable=False),  # what is to be extracted
    Column("owner", Text),  # the token of the process that reads it
    Column("attempts", Integer, nullable=False, default=0),
    Column("document", LargeBinary),  # what was found, compressed
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("extractions_open", "app_id", "file_id", **_where("status = 'PROCESSING'")),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("file_id", Text, nullable=False, unique=True),  # the file's id, once it is there
    Column("storage", Text, nullable=False),
    Column("visibility", Text, nullable=False),
    Column("options", LargeBinary, nullable=False),  # allowed types, metadata, what to extract
    Column("claim", Text),  # the token of the process that takes a file in just now
    Column("used_at", BigInteger),
    Column("expires_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("uploads_by_app", "app_id", "id"),
    Index("uploads_by_expiry", "expires_at"),
)

tags = Table(
    "tags",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("color", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("tags_by_name", "app_id", "name", unique=True),
)

tagged = Table(
    "tagged",
    metadata,
    Column("tag_id", Text, ForeignKey("tags.id", ondelete="CASCADE"), primary_key=True),
    Column("thing_id", Text, primary_key=True),  # of a workflow, a collection or a record
    Index("tagged_by_thing", "thing_id", "tag_id"),
    sqlite_with_rowid=False,
)

collections = Table(
    "collections",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("config_id", Text, nullable=False),  # what new records take
    Column("triggers", LargeBinary, nullable=False, default=b"[]"),
    Column("deleting", Boolean, nullable=False, default=False),  # nothing begins in it any more
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("collections_by_app", "app_id", "id"),
    Index("collections_deleting", "app_id", "id", **_where("deleting")),
)

collection_configs = Table(
    "collection_configs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("collection_id", Text, nullable=False),
    Column("rules", LargeBinary, nullable=False),  # never changed: records stand on it
    Column("mappings", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("collection_configs_by_collection", "collection_id", "id"),
)

records = Table(
    "records",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("collection_id", Text, nullable=False),
    Column("config_id", Text, nullable=False),
    Column("name", Text),
    Column("status", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("rules_count", Integer, nullable=False, default=0),
    Column("pass_count", Integer, nullable=False, default=0),
    Column("fail_count", Integer, nullable=False, default=0),
    Column("warn_count", Integer, nullable=False, default=0),
    Column("analysis", Integer, nullable=False, default=0),  # how often it was begun
    Column("entity", LargeBinary),  # what a trigger made it of
    Column("created_by", Text),  # the id of a key
    Column("cancel_requested_at", BigInteger),
    Column("cancel_requested_by", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("records_by_collection", "collection_id", "id", "name"),
    Index("records_by_status", "collection_id", "status", "id"),
    Index("records_by_app", "app_id", "id", "name"),
    Index("records_by_config", "config_id"),
    Index("records_live", "id", **_where("status IN ('QUEUED', 'RUNNING')")),
)

record_rules = Table(
    "record_rules",
    metadata,
    Column("record_id", Text, ForeignKey("records.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("place", Integer, nullable=False),
    Column("phase", Integer, nullable=False),  # before all, together, after all
    Column("disabled", Boolean, nullable=False, default=False),
    Column("due", Boolean, nullable=False, default=False),  # waits for its run to be made
    Column("status", Text, nullable=False),
    Column("input", LargeBinary),
    Column("run_id", Text),
    Column("ended", Text),  # how its last run did
    Column("outcome", LargeBinary),  # result, error, usage and the run in short
    Column("ran", LargeBinary),  # the digest of what it ran on
    Column("credits", Float, nullable=False, default=0.0),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("record_rules_running", "record_id", **_where("status = 'RUNNING'")),
    sqlite_with_rowid=False,
)

workflow_expectations = Table(
    "workflow_expectations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("script", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("workflow_expectations_by_workflow", "workflow_id", "id"),
)

workflow_tests = Table(
    "workflow_tests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("input", LargeBinary),
    Column("input_default", LargeBinary),
    Column("input_context", LargeBinary),
    Column("step_key", Text),
    Column("expectations", LargeBinary, nullable=False, default=b"[]"),  # with what they gave
    Column("passing", Integer, nullable=False, default=0),
    Column("failing", Integer, nullable=False, default=0),
    Column("run_id", Text),  # null while RUNNING: it waits for its turn
    Column("error", Text),  # why it has no run, or none that could be judged
    Column("version", Text),  # what is to run: a number, or the draft
    Column("ran", LargeBinary),  # the digest of the body that it was judged on
    Column("recording", LargeBinary),  # answers from outside that its runs are given, compressed
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("workflow_tests_by_workflow", "workflow_id", "id", "status"),
    Index(
        "workflow_tests_running",
        "workflow_id",
        "run_id",
        "updated_at",
        "id",
        **_where("status = 'RUNNING'"),
    ),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("app_id", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("events", Text, nullable=False),  # each between commas
    Column("enabled", Boolean, nullable=False, default=True),
    Column("disabled_reason", Text),
    Column("failing_since", BigInteger),  # null: the last delivery arrived
    Column("sealed", LargeBinary, nullable=False),  # what signs
    Column("key_id", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("webhooks_by_app", "app_id", "id"),
    Index("webhooks_sealed", "key_id", **_where("key_id IS NOT NULL")),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("webhook_id", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # of the event, the same for every webhook
    Column("event", Text, nullable=False),
    Column("body", LargeBinary),  # null: what it told of is erased
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("log", LargeBinary, nullable=False, default=b"[]"),
    Column("next_at", BigInteger),  # null: it has arrived, or was given up
    Column("thing_id", Text, nullable=False),  # of the run or record it tells of
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("deliveries_due", "webhook_id", "next_at", "id", **_where("next_at IS NOT NULL")),
    Index("deliveries_by_age", "id"),
    Index("deliveries_by_status", "webhook_id", "status", "id"),
    Index("deliveries_by_thing", "thing_id"),
)

hook_tokens = Table(
    "hook_tokens",
    metadata,
    Column("workflow_id", Text, primary_key=True),
    Column("target", Text, primary_key=True),  # latest or draft
    Column("app_id", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("key_id", Text),
    Column("created_at", BigInteger, nullable=False),
    Index("hook_tokens_by_app", "app_id"),
    Index("hook_tokens_sealed", "key_id", **_where("key_id IS NOT NULL")),
)

nodes = Table(
    "nodes",
    metadata,
    Column("token", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
)

commits = Table(
    "commits",  # on PostgreSQL alone: what became of a commit whose answer was lost
    metadata,
    Column("writer", BigInteger, primary_key=True),  # of one process, drawn when it starts
    Column("number", BigInteger, primary_key=True),  # counts its transactions
    Column("stands", Boolean, nullable=False),  # false: it was asked for before it was there
    Column("created_at", BigInteger, nullable=False),
)

facts = Table(
    "facts",
    metadata,
    Column("name", Text, primary_key=True),  # schema version, installation id, signing key
    Column("value", LargeBinary, nullable=False),
)
